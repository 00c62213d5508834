#!/bin/sh
# templates.sh - chat templates beside Jinja2, byte for byte: our own, and those of real models, which
# need the network once.
. tests/cases/case.sh.inc

real=build/templates
[ -d $real ] || { rm -rf $real.part && python3 tests/real_templates.py $real.part > "$tmp/log" 2>&1 && mv $real.part $real; } ||
	echo "no templates of real models: no network"
python3 tests/templates.py --render "$B/render" $(ls $real/*.jinja 2> /dev/null)
