"""Where the ranks of a trial find each other."""

from __future__ import annotations

import stat
from pathlib import Path

from torch.distributed import FileStore
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous.c10d_rendezvous_backend import create_backend

from autotune.trial.together import _launch_config


def test_what_ranks_unpickle_comes_from_a_file_of_the_users_own(tmp_path: Path) -> None:
    """And not from a server that listens to the network, as torchrun's does."""
    asked = _launch_config(2, tmp_path, forks=True)
    parameters = RendezvousParameters(
        asked.rdzv_backend, asked.rdzv_endpoint, asked.run_id, asked.min_nodes, asked.max_nodes, **asked.rdzv_configs
    )
    _, store = create_backend(parameters)
    assert isinstance(store, FileStore)
    path = Path(store.path)
    assert path.parent == tmp_path and not path.stat().st_mode & stat.S_IWOTH
