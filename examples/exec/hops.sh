#!/bin/sh
# A program for the exec step of Sluice: how many servers has a mail passed? The first line is the question; the header
# follows.
read -r question || exit 65
hops=$(grep -ci '^received:')
printf '{"version":1,"fact":{"received":%d}}\n' "$hops"
