#!/usr/bin/env bash
# A SLURM cluster of two nodes inside this machine, for tests. It installs nothing (Debian: apt-get install slurm-wlm
# munge), needs root, and keeps all files in one folder.
#   start_cluster.sh start [FOLDER]   starts munged, slurmctld and two slurmd, and prints what to export;
#                                     if they are running it only prints
#   start_cluster.sh stop [FOLDER]    cancels all jobs, ends what it started, and removes the folder
# To use it: eval "$(start_cluster.sh start)"
# Exit codes: 2 where there can be no cluster (it says why), 1 where it does not start.
set -euo pipefail
what=${1:-start}
box=${2:-${TMPDIR:-/tmp}/diffprobe-slurm}
export SLURM_CONF=$box/slurm.conf
nodes="n1 n2"

refuse() {
    echo "start_cluster.sh: $*" >&2
    exit 2
}

# give_up WHAT LOG: ends what was started
give_up() {
    local said
    said=$(tail -n 1 "$2" 2> /dev/null || true)
    stop
    echo "start_cluster.sh: $1 does not answer${said:+: $said}" >&2
    exit 1
}

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.1
    done
}

nodes_idle() { [ "$(sinfo --noheader --Node --states=idle --partition=main | wc -l)" = 2 ]; }
no_jobs() { [ -z "$(squeue --noheader)" ]; }
ended() { ! kill -0 "$1"; }

running() { [ -f "$SLURM_CONF" ] && timeout 5 sinfo --noheader > /dev/null 2>&1; }

write_configuration() {
    local host ports
    host=$(hostname -s)
    read -ra ports < <(python3 - <<'PYTHON'
from contextlib import ExitStack
from socket import socket
with ExitStack() as stack:  # all open at once, so that they differ
    sockets = [stack.enter_context(socket()) for _ in range(3)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    print(*(each.getsockname()[1] for each in sockets))
PYTHON
    )
    cat > "$SLURM_CONF" <<CONF
ClusterName=box
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
AuthType=auth/munge
# cred_expire: seconds that a requeued job waits before it starts again
AuthInfo=socket=$box/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmUser=root
SlurmdUser=root
# The machine may have less than the nodes say.
SlurmdParameters=config_overrides
StateSaveLocation=$box/state
SlurmctldPidFile=$box/slurmctld.pid
SlurmdPidFile=$box/%n/pid
SlurmdSpoolDir=$box/%n
SlurmctldLogFile=$box/log/slurmctld.log
SlurmdLogFile=$box/log/%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
# Seconds from SIGTERM to SIGKILL
KillWait=10
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=2 RealMemory=16000 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[2]} CPUs=2 RealMemory=16000 State=UNKNOWN
# A job of urgent takes the place of one of preemptible, which gets SIGTERM, GraceTime seconds, and is requeued.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=n1,n2 Default=YES PriorityTier=2 PreemptMode=OFF
PartitionName=preemptible Nodes=n1,n2 PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=n1,n2 PriorityTier=2 PreemptMode=OFF
CONF
}

# submitit asks sacct for the states of jobs, which without accounting fails; slurmctld remembers them long enough.
write_sacct() {
    cat > "$box/bin/sacct" <<'SACCT'
#!/usr/bin/env bash
# Answers `sacct -o JobID,State,NodeList --parsable2 -j ID[,ID...] [-j ...]` from the memory of slurmctld.
ids=()
while [ $# -gt 0 ]; do
    if [ "$1" = -j ]; then
        IFS=, read -ra more <<< "$2"
        ids+=("${more[@]}")
        shift
    fi
    shift
done
echo 'JobID|State|NodeList'
for id in "${ids[@]}"; do
    scontrol --oneliner show job "$id" 2> /dev/null | awk '{
        delete value
        for (field = 1; field <= NF; field++) {
            at = index($field, "=")
            value[substr($field, 1, at - 1)] = substr($field, at + 1)
        }
        name = "ArrayJobId" in value ? value["ArrayJobId"] "_" value["ArrayTaskId"] : value["JobId"]
        print name "|" value["JobState"] "|" value["NodeList"]
    }'
done
SACCT
    chmod +x "$box/bin/sacct"
}

start() {
    if running; then
        return
    fi
    if [ -d "$box" ] && [ ! -f "$SLURM_CONF" ] && [ -n "$(ls -A "$box")" ]; then
        refuse "$box is not empty; give a folder of its own, which is removed in the end"
    fi
    mkdir -p "$box"/{state,log,bin,n1,n2}
    chmod 755 "$box"
    write_configuration
    write_sacct
    [ -s "$box/munge.key" ] || (umask 077 && head -c 1024 /dev/urandom > "$box/munge.key")
    # --force: a folder below /tmp is one that others may write beside
    munged --force --key-file="$box/munge.key" --socket="$box/munge.socket" --pid-file="$box/munged.pid" \
        --log-file="$box/log/munged.log" --seed-file="$box/munge.seed" > /dev/null 2>&1
    wait_for 10 munge --no-input --socket="$box/munge.socket" || give_up munged "$box/log/munged.log"
    slurmctld > /dev/null 2>&1
    wait_for 20 sinfo --noheader || give_up slurmctld "$box/log/slurmctld.log"
    for node in $nodes; do
        slurmd -N "$node" > /dev/null 2>&1
    done
    wait_for 30 nodes_idle || give_up "one of the nodes" "$box/log/n1.log"
}

stop() {
    local files=("$box"/n1/pid "$box"/n2/pid "$box"/slurmctld.pid "$box"/munged.pid) file pid
    if running; then
        scancel --user=root
        wait_for 30 no_jobs || echo "start_cluster.sh: jobs do not end" >&2
    fi
    for file in "${files[@]}"; do # munged last, without which the others cannot talk
        [ -s "$file" ] || continue
        pid=$(cat "$file")
        kill "$pid" 2> /dev/null || continue
        wait_for 20 ended "$pid" || kill -9 "$pid"
    done
    if [ -f "$SLURM_CONF" ]; then
        rm -rf "$box"
    fi
}

case $what in
start | stop) ;;
*) refuse "unknown command '$what'; give start or stop, and a folder" ;;
esac
for name in munged munge slurmctld slurmd sbatch srun; do
    command -v $name > /dev/null || refuse "$name is not installed (Debian: apt-get install slurm-wlm munge)"
done
[ "$(id -u)" = 0 ] || refuse "only root can start SLURM's daemons for all users; run it as root, in a container"
"$what"
if [ "$what" = start ]; then
    # Nodes have names that SLURM alone knows, so processes of several nodes find each other by address.
    echo "export SLURM_CONF='$SLURM_CONF' PATH='$box/bin':\$PATH MASTER_ADDR=127.0.0.1"
fi
