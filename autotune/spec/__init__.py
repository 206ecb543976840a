"""Reads the YAML document into typed models; errors have line numbers."""

from autotune.spec.arguments import with_arguments
from autotune.spec.constraints import MEASURES, Constraint, knob_values, parse_constraint
from autotune.spec.load import LoadedSpec, load_spec, parse_spec, spec_sha256, study_name
from autotune.spec.model import Spec
from autotune.spec.scaffold import scaffold_text
from autotune.spec.scalars import dump_yaml
from autotune.spec.schema import json_schema

__all__ = [
    "MEASURES",
    "Constraint",
    "LoadedSpec",
    "Spec",
    "dump_yaml",
    "json_schema",
    "knob_values",
    "load_spec",
    "parse_constraint",
    "parse_spec",
    "scaffold_text",
    "spec_sha256",
    "study_name",
    "with_arguments",
]
