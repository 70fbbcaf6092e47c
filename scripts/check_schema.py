"""Send what Schemathesis makes up from /openapi.json to `tilewhisper serve`; no answer may be a 5xx.

    python scripts/check_schema.py --model tiny.en --policy torch

The server is a process of its own. Schemathesis draws requests that follow the description and requests that break it.
Further arguments are Schemathesis' own, such as `-- --max-examples 200`.

Exit status: Schemathesis' own, 0 when it finds nothing. Needs tilewhisper[serve] and schemathesis.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from faults.process import server

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = 60


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="tiny.en", help="(default: %(default)s)")
    p.add_argument("--policy", default="torch", help="(default: %(default)s)")
    p.add_argument("others", nargs="*", help="arguments of Schemathesis")
    args = p.parse_args()
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        print("check_schema: error: schemathesis is missing: pip install schemathesis", file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory(prefix="schema-") as folder,
        server(Path(folder), ["--model", args.model, "--policy", args.policy]) as running,
    ):
        command = [str(program), "run", f"{running.url}/openapi.json", "--checks", CHECKS, f"--max-examples={EXAMPLES}"]
        return subprocess.run([*command, *args.others], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
