#!/bin/sh
# Removes the scripts storescu, echoscu and so on that pynetdicom puts into a virtual environment: with the environment on
# the path they hide dcmtk's programs of the same names, which have other options. `python -m pynetdicom storescu` is left.
# Usage: sh deploy/keep-dcmtk.sh .venv/bin
set -eu

for name in echoscp echoscu findscu getscu movescu qrscp storescp storescu; do
    if grep -qs pynetdicom "$1/$name"; then rm -f "$1/$name"; fi
done
