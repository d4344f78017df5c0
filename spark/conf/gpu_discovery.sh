#!/usr/bin/env bash
# Spark's GPU discovery: prints the GPUs that this container may use, as Spark's resource API wants them.
# YARN hides the others from nvidia-smi where it isolates GPUs (cgroups or Docker); else see docs/operations.md.
# CUDA_VISIBLE_DEVICES, where whoever started Spark has set it, names those that are allowed.
set -euo pipefail

if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    gpus=${CUDA_VISIBLE_DEVICES//,/$'\n'}
else
    gpus=$(nvidia-smi --query-gpu=index --format=csv,noheader,nounits)
fi
# CUDA's list ends at the first entry that is none, such as -1.
addresses=$(sed -e 's/ //g' -e '/^-/Q' -e '/^$/Q' <<<"$gpus" | sed -e ':a' -e 'N' -e '$!ba' -e 's/\n/","/g')
if [[ -n $addresses ]]; then
    printf '{"name": "gpu", "addresses": ["%s"]}\n' "$addresses"
else
    printf '{"name": "gpu", "addresses": []}\n'
fi
