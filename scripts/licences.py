"""Prints the packages that are in the programs, each with its licence, and the texts of these licences.

Many packages have the same text, which is printed once, under the packages that it belongs to.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

TEXTS = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|UNLICENSE)", re.IGNORECASE)
# The licence whose text has no names in it: a package that brings no text may be used under it.
GENERAL = "Apache-2.0"


def cargo(*command):
    return subprocess.run(["cargo", *command, "--locked", "--all-features"], check=True, stdout=subprocess.PIPE, text=True).stdout


def contained():
    """The packages that are linked into the programs or generate their code, with their licences."""
    lines = cargo("tree", "--edges", "normal", "--prefix", "none", "--format", "{p}|{l}").splitlines()
    pairs = (line.removesuffix(" (*)").split("|") for line in lines)  # the mark of a package that was there before
    # A path or "proc-macro" may follow the version.
    return dict(sorted((" ".join(package.split()[:2]), licence) for package, licence in pairs))


def texts(directory):
    """The files that a package has its licences in."""
    return [path for path in sorted(directory.iterdir()) if TEXTS.match(path.name) and path.is_file()]


def main():
    directories = {
        f"{package['name']} v{package['version']}": Path(package["manifest_path"]).parent
        for package in json.loads(cargo("metadata", "--format-version", "1"))["packages"]
        if package["source"]  # not ours
    }
    users = {}
    for package, licence in contained().items():
        if package not in directories:
            continue
        found = texts(directories[package])
        if not found and GENERAL not in licence:
            sys.exit(f"{package} brings no text of its licence {licence}; replace the package or print the text here")
        print(f"{package}: {licence}" + ("" if found else f" (used under {GENERAL}; it brings no text)"))
        for path in found:
            text = path.read_text(errors="replace").strip("\n")
            # Copies differ in their white space.
            users.setdefault(" ".join(text.split()), (text, []))[1].append(f"{package} ({path.name})")
    for text, packages in users.values():
        print(f"\n{'=' * 80}\n{', '.join(packages)}:\n\n{text}")


main()
