#!/bin/bash
# One run on all hosts of a TPU pod slice that exists, until it has ended:
#
#   bash experiments/launch/tpu_pod.sh NAME ZONE --config=configs/vp/cifar10_ddpmpp_continuous.py --workdir=/mnt/runs/cifar10 --mode=train
#
# On each host the repository is in ~/score_sde with "jax[tpu]" installed, and the workdir and the data are on a mounted
# file system that all hosts see (NFS, or a bucket by gcsfuse). A slice that was preempted is to be made again, by a
# queued resource say; the same command then goes on from the last checkpoint.
set -u
if [ "$#" -lt 3 ]; then
    echo "usage: $0 NAME ZONE FLAGS_OF_SCORE_SDE..." >&2
    exit 2
fi
name=$1 zone=$2
shift 2

# The hosts find each other by the pod's metadata. exec: a stopped ssh stops the program, not a shell before it.
program="cd score_sde && exec python3 -m score_sde$(printf ' %q' "$@")"
while true; do
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$program"
    status=$?
    # 75: stopped, as before maintenance, and the same command goes on. ssh says 255 when it is ssh that failed.
    if [ "$status" -ne 75 ]; then
        exit "$status"
    fi
    sleep "${PAUSE:-30}"
done
