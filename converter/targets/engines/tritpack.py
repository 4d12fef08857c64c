"""Our own runtime: it runs every layout and every model that converts."""

from tritpack.converter.targets.engines.engine import Engine

ENGINE = Engine("tritpack", layouts=None, command='tritpack generate {file} -p "Once upon a time"', ternary_tables=True)
