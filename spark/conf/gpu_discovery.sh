#!/usr/bin/env bash
# Spark's GPU discovery: prints the GPUs that this container may use, as Spark's resource API wants them.
# YARN hides the others from nvidia-smi where it isolates GPUs (cgroups or Docker); else see docs/operations.md.
set -euo pipefail

addresses=$(nvidia-smi --query-gpu=index --format=csv,noheader,nounits | sed -e ':a' -e 'N' -e '$!ba' -e 's/\n/","/g')
printf '{"name": "gpu", "addresses": ["%s"]}\n' "$addresses"
