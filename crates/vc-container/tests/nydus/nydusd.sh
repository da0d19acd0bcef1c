#!/bin/sh
# A process that is there as nydusd is, with the double's API beside it: that of this program's name and `.api`.
while [ $# -gt 0 ]; do
    [ "$1" = --apisock ] && ln -s "$0.api" "$2"
    shift
done
exec tail -f /dev/null
