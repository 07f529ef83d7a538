#!/bin/sh
# A SLURM of two nodes, both on this machine: tests/cluster/slurm.sh start|stop <folder>
# Debian's slurm-wlm and munge, run as root from one folder: nothing of the system's own is touched.
# Then: SLURM_CONF=<folder>/slurm.conf srun --nodes=2 hostname
set -eu
folder=$2

stop() {
    for name in slurmd.node1 slurmd.node2 slurmctld munged; do
        [ -f "$folder/$name.pid" ] && kill -9 "$(cat "$folder/$name.pid")" 2>/dev/null || true
        rm -f "$folder/$name.pid"
    done
}

start() {
    mkdir -p "$folder/state" "$folder/node1" "$folder/node2"
    chmod 711 "$folder"
    head -c 1024 /dev/urandom >"$folder/munge.key"
    chmod 400 "$folder/munge.key"
    cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=${SLURM_TEST_PORT:-16817}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=30
InactiveLimit=0
KillWait=30
MinJobAge=300
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobRequeue=1
NodeName=node1 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((${SLURM_TEST_PORT:-16817} + 1)) CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=4000
NodeName=node2 NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((${SLURM_TEST_PORT:-16817} + 2)) CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=4000
PartitionName=all Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
CONF
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
    export SLURM_CONF="$folder/slurm.conf"
    slurmctld -f "$SLURM_CONF" -c
    slurmd -f "$SLURM_CONF" -N node1
    slurmd -f "$SLURM_CONF" -N node2
}

case $1 in
    start) start ;;
    stop) stop ;;
    *) echo "usage: $0 start|stop <folder>" >&2; exit 1 ;;
esac
