#!/bin/bash
# A SLURM of one machine, on which test_slurm.py and test_launch.py run in full. As root, on Debian or Ubuntu:
#
#   apt-get install --no-install-recommends slurm-wlm munge
#   eval "$(bash tests/slurm_of_one_machine.sh start /tmp/slurm)"
#   .venv/bin/python -m pytest -n 0 tests/test_slurm.py tests/test_launch.py
#   bash tests/slurm_of_one_machine.sh stop /tmp/slurm
#
# The daemons are started by hand, listen on the loopback device only and keep all their files in the folder.
set -eu
if [ "$#" -ne 2 ]; then
    echo "usage: $0 start|stop FOLDER" >&2
    exit 2
fi
action=$1 host=$(hostname -s)
mkdir -p "$2"
folder=$(realpath "$2")

if [ "$action" = stop ]; then
    for daemon in slurmd slurmctld munged; do
        pid=$(cat "$folder/$daemon.pid" 2>/dev/null) && kill "$pid" || true
    done
    exit 0
fi

mkdir -p "$folder/state" "$folder/spool"
head -c 128 /dev/urandom > "$folder/munge.key"
chmod 600 "$folder/munge.key"
# cred_expire is also how long a requeued job waits; preempt_send_user_signal is the notice on which a job saves.
cat > "$folder/slurm.conf" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort=46817
SlurmdPort=46818
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=5
MinJobAge=300
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 NodeHostname=$host CPUs=4 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=INFINITE DefaultTime=60 State=UP GraceTime=10
END

export SLURM_CONF="$folder/slurm.conf"
munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" >&2
slurmctld -f "$SLURM_CONF" >&2
slurmd -N "$host" -f "$SLURM_CONF" >&2
for _ in $(seq 100); do
    if sinfo --noheader --format=%T 2>/dev/null | grep --quiet idle; then
        echo "export SLURM_CONF=$SLURM_CONF"
        exit 0
    fi
    sleep 0.3
done
echo "No node is ready; see the logs in $folder." >&2
exit 1
