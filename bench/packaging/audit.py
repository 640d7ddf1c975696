"""Look up the locked packages in an advisory database, with pip-audit.

Exit code 0: all were found and none has a known vulnerability. 1: vulnerabilities are
known. 2: the database could not be reached, or did not know every package.
"""

import json
import subprocess
import sys


def main(lock: str) -> int:
    """Audit a file of locked requirements."""
    command = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip"]
    done = subprocess.run(
        [*command, "--requirement", lock, "--format", "json", "--progress-spinner=off"],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"the advisory database could not be asked: {last}", file=sys.stderr)
        return 2
    skipped = [p["name"] for p in packages if "skip_reason" in p]
    known = [(p, v) for p in packages for v in p.get("vulns", [])]
    for package, weakness in known:
        fixed = ", ".join(weakness["fix_versions"]) or "no version yet"
        print(
            f"{package['name']} {package['version']}: {weakness['id']}, fixed: {fixed}"
        )
    asked = len(packages) - len(skipped)
    print(f"{asked} of {len(packages)} packages asked about, {len(known)} weaknesses")
    if known:
        return 1
    if skipped:
        names = ", ".join(skipped)
        print(
            f"the advisory database could not be asked about: {names}", file=sys.stderr
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
