"""Runs all that is known about the pages: usage: pages.py check|update"""
import sys

import links
import messages
import picture
import snippets

check = sys.argv[1:] != ["update"]
found = [problem for part in (snippets, picture, links, messages) for problem in part.update(check)]
print("\n".join(found), file=sys.stderr, end="\n" if found else "")
sys.exit(1 if found else 0)
