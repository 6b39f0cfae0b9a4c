"""The page of all settings, `docs/settings.md`, written from the settings themselves."""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic.fields import FieldInfo

from lowtide.app.settings import Section, Settings, UpstreamSettings

_HEAD = """# Settings

{generated}
None is needed to begin: `lowtide serve --upstream URL` is enough. A value comes from the command line, else from the
environment, else from the file, else it is the default below. A setting that does not exist, or a value that it cannot
have, is refused with a sentence that says where it stands.

- **Command line**: `--host`, `--port`, `--data`, `--workers`, and `--upstream URL`, which may repeat and replaces all
  upstreams of the file.
- **Environment**: `LOWTIDE_` and the name in capitals, with two underscores between a table and its setting:
  `LOWTIDE_PORT=9000`, `LOWTIDE_WORKER__LEASE_S=30`. Lists are JSON: `LOWTIDE_UPSTREAMS='[{{"url": "http://127.0.0.1:8000"}}]'`.
- **File**: `lowtide.toml` in the working directory, or the one that `--config` or `LOWTIDE_CONFIG` names. Paths in it are
  relative to the working directory.

```toml
port = 9000
data = "/srv/lowtide"

[limits]
requests_max = 500000

[[upstreams]]
url = "http://127.0.0.1:8000"
in_flight_max = 256
aliases = {{ "claude-*" = "qwen3-8b" }}

[[upstreams]]
url = "https://api.anthropic.com"
key_env = "ANTHROPIC_API_KEY"
models = ["claude-opus-*"]
```

A key is never a setting: `key_env` and `key_file` say where it is.
"""

_TAIL = """
## Variables that are no settings

| variable | what it does |
|---|---|
| `LOWTIDE_CONFIG` | the file to read, as `--config` |
| `LOWTIDE_URL` | the server that the client commands call, as `--url` |
| `LOWTIDE_API_KEY` | the key with which the client commands call; without it `ANTHROPIC_API_KEY` |
| `LOWTIDE_FAULTS` | arms fault points, for tests: see [fault points](fault-points.md) |
| `LOWTIDE_FAULT_HANG_S` | how long an armed hang lasts, in seconds |
| `LOWTIDE_FAULTS_TAKEN` | the file in which fault points note that they were set off |
"""


def page(generated: str) -> str:
    """Return the page; `generated` is the comment that says where it comes from."""
    top = [(name, field) for name, field in Settings.model_fields.items() if field.description]
    parts = [_HEAD.format(generated=generated), _section("The server", "", top)]
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            parts.append(_section(f"`[{name}]`", kind.__doc__ or "", list(kind.model_fields.items())))
    parts.append(
        _section("`[[upstreams]]`", UpstreamSettings.__doc__ or "", list(UpstreamSettings.model_fields.items()))
    )
    return "\n".join(parts) + _TAIL


def _section(title: str, says: str, fields: Sequence[tuple[str, FieldInfo]]) -> str:
    rows = [f"| `{name}` | {shown(field)} | {field.description} |" for name, field in fields]
    text = f"## {title}\n\n" + (f"{says}\n\n" if says else "")
    return text + "\n".join(["| setting | default | what it does |", "|---|---|---|", *rows]) + "\n"


def shown(field: FieldInfo) -> str:
    """Return a default as one would write it in the file."""
    if field.is_required():
        return "none: it must be given"
    value = field.get_default(call_default_factory=True, validated_data={})
    match value:
        case None | "" | () | {}:
            return "none"
        case Path():
            return f'`"{value}"`'
        case bool() | str() | tuple():
            return f"`{json.dumps(value)}`"
        case _:
            return f"`{value}`"
