"""`infrasight schema`: the statements that make the tables."""

from __future__ import annotations

from infrasight.cli.options import SchemaOptions
from infrasight.errors import SettingsError


def run(options: SchemaOptions) -> int:
    """Print them; the exit status."""
    from infrasight.schema.retention import Keep, Retention  # brings pyarrow along
    from infrasight.schema.tables import whole_ddl

    try:
        retention = Retention.of(options.keep_days, map(Keep, options.keep))
    except ValueError as error:
        raise SettingsError(f"--keep: {error}") from None
    for statement in whole_ddl(retention.all(), options.cluster):
        print(f"{statement};\n")
    return 0
