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
        print(f"the advisory database cannot be reached: {last}", file=sys.stderr)
        return 2
    skipped = [p["name"] for p in packages if "skip_reason" in p]
    known = [(p, v) for p in packages for v in p.get("vulns", [])]
    for package, entry in known:
        fixed = ", ".join(entry["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {entry['id']}, fixed: {fixed}")
    found = len(packages) - len(skipped)
    print(
        f"{found} of {len(packages)} packages looked up, {len(known)} vulnerabilities"
    )
    if known:
        return 1
    if skipped:
        names = ", ".join(skipped)
        print(f"not in the advisory database: {names}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
