"""A PostgreSQL server of a test's own, from the system's packages."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER, PASSWORD, DATABASE = "autotune", "s3cret-word", "studies"


def find_binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: Debian keeps them out of the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    found = str(debian[-1]) if debian else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class Server:
    """Listens on this machine's own address, with a password."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._data = folder / "data"
        self._log = folder / "server.log"
        self._options: dict[str, Any] = _not_root(folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "-D", self._data, "-U", USER, "-A", "scram-sha-256", "--pwfile", secret, "--no-sync")
        self.start()
        self._sql("postgres", f"CREATE DATABASE {DATABASE}")

    def url(self, *, password: bool = True) -> str:
        return f"postgresql://{USER}{f':{PASSWORD}' if password else ''}@127.0.0.1:{self.port}/{DATABASE}"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", self._data, "-l", self._log, "-w", "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def drop_connections(self) -> int:
        """Every one but the one that asks for it, as a firewall or a restart would; how many there were."""
        asked = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname"
        )
        return int(self._sql("postgres", f"{asked} = '{DATABASE}'"))

    def _sql(self, database: str, statement: str) -> str:
        import psycopg

        address = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"
        with psycopg.connect(address, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return str(cursor.fetchone()[0]) if cursor.description else ""

    def _run(self, program: str, *arguments: Any) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60, cwd="/", **self._options)


def _not_root(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then as the user that its package has made."""
    if os.getuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    binaries = find_binaries()
    assert binaries is not None
    server = Server(binaries, folder)
    try:
        yield server
    finally:
        server.stop()
