#!/bin/sh
# templates.sh - chat templates beside Jinja2, byte for byte.
. tests/cases/case.sh.inc

python3 tests/templates.py --render "$B/render"
