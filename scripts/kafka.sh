#!/usr/bin/env bash
# Runs a real Apache Kafka on this machine, for trying things out and for the tests.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"

usage() {
  cat <<'TEXT'
usage: scripts/kafka.sh COMMAND

  start [N]         start N brokers (default: as many as there were, else 1) and wait until they respond
  start-broker I    restart broker I after it was stopped or died; its data is kept
  stop-broker I     stop broker I only
  stop              stop what this script started; keeps the data
  status            show what is running; exit code 0 if Kafka responds, 3 if not
  wipe              stop and delete all data
  fetch             only fetch what the jvm runtime needs, and make its starts faster

Environment:
  KAFKA_RUNTIME     docker | jvm (default: a broker that already responds, else docker if an engine, compose and
                    the images are available or can be pulled, else jvm)
  KAFKA_MODE        kraft | zookeeper (default: kraft; docker always has ZooKeeper)
  KAFKA_VERSION     version of Kafka, default 3.9.2 (jvm only)
  KAFKA_PORT        port of the first broker (default 9092); broker I listens on KAFKA_PORT + 10*(I-1),
                    its controller on the port above that, ZooKeeper on KAFKA_PORT + 2
  KAFKA_BROKERS     your own brokers; if they respond, they are used as they are and never stopped
  KAFKA_DIR         data, logs and pid files (default target/kafka); broker I uses KAFKA_DIR/broker-I
  KAFKA_PROPERTIES  a file with additional broker settings
  KAFKA_JVM_OPTS    default -Xmx512m -Xms128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC (omit the last two for
                    benchmarks)
  KAFKA_OWNER_PID   wipe as soon as this process has exited
TEXT
}

dir=$(realpath --canonicalize-missing "${KAFKA_DIR:-$root/target/kafka}")
brokers=${KAFKA_BROKERS:-}
# A cluster that was started here keeps its version, mode and port unless they are set.
version=3.9.2 mode=kraft port=9092
if [[ -d $dir/broker-1 && -f $dir/made-by ]]; then
  read -r version mode port <"$dir/made-by"
elif [[ -s $dir/docker ]]; then
  read -r port <"$dir/docker"
fi
version=${KAFKA_VERSION:-$version}
mode=${KAFKA_MODE:-$mode}
case ${KAFKA_PORT:-}/${brokers%%,*} in
  /127.0.0.1:* | /localhost:*) port=${brokers%%,*} port=${port##*:} ;;
  *) port=${KAFKA_PORT:-$port} ;;
esac
brokers=${brokers:-127.0.0.1:$port}
zookeeper_port=$((port + 2))
libs=$root/target/kafka/libs/$version
jvm_options=${KAFKA_JVM_OPTS:--Xmx512m -Xms128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC}
read -ra java_options <<<"$jvm_options"
java_options+=(-Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true
  "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss,SSS" -classpath "$libs/*")
# `fetch` makes the archive, which halves the processor time of a start. A JVM that it does not fit ignores it.
classes=$libs/classes.jsa
# What Kafka writes for every new broker of this version.
bootstrap=$libs/bootstrap.checkpoint
[[ ! -f $classes ]] || java_options+=(-XX:SharedArchiveFile="$classes")
without_jvm="or set KAFKA_RUNTIME=docker, or point KAFKA_BROKERS at a running Kafka"
start_timeout_s=90
stop_timeout_s=20
# A start may have to fetch Kafka first.
fetch_timeout_s=1200
lock_timeout_s=$((fetch_timeout_s + start_timeout_s))
# Any valid id will do. With a fixed one, broker N can join the cluster of broker 1.
cluster_id=ZXZlbnQtcGlwZWxpbmUtMQ

# shellcheck source=scripts/docker.sh
source "$root/scripts/docker.sh"

[[ $mode == kraft || $mode == zookeeper ]] || die "KAFKA_MODE=$mode: expected kraft or zookeeper"
[[ $port =~ ^[0-9]+$ && $port -gt 0 && $port -lt 65000 ]] || die "KAFKA_PORT=$port: expected a port below 65000"

broker_port() { echo $((port + 10 * ($1 - 1))); }
controller_port() { echo $((port + 10 * ($1 - 1) + 1)); }

# --- Checking brokers ---

# brokers_behind HOST PORT: prints the cluster's number of brokers; fails without a response within 2 seconds.
brokers_behind() {
  # Metadata version 1, correlation id 1, no client id, no topics: size, key, version, id, client, topics.
  # shellcheck disable=SC2016 # expanded by the inner shell
  timeout 2 bash -c '
    host=${1#[}
    exec 3<>"/dev/tcp/${host%]}/$2" || exit 1
    printf "\0\0\0\016\0\003\0\001\0\0\0\001\377\377\0\0\0\0" >&3
    head --bytes=12 <&3 | od --address-radix=n --format=u1 --width=12' _ "$1" "$2" 2>/dev/null |
    awk 'NF == 12 && $8 == 1 { print $11 * 256 + $12; found = 1 } END { exit !found }'
}

port_is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints HOST:PORT of the first of KAFKA_BROKERS that responds.
answering() {
  local address
  for address in ${brokers//,/ }; do
    if brokers_behind "${address%:*}" "${address##*:}" >/dev/null; then
      echo "$address"
      return
    fi
  done
  return 1
}

# --- Our processes ---

# pid_of NAME: prints the node's pid if it is running. The command line must contain our directory, so that a
# recycled pid does not count.
pid_of() {
  local pid line tries
  pid=$(cat "$dir/$1/pid") || return 1
  for ((tries = 0; tries < 20; tries++)); do
    line=$(tr '\0' ' ' <"/proc/$pid/cmdline") || return 1
    [[ $line == *"$dir/$1/"* ]] && echo "$pid" && return
    # While setsid execs nohup and nohup java, the command line is briefly empty, like that of a dead process.
    [[ -z $line ]] && grep --quiet '^State:[[:space:]]*[^ZX]' "/proc/$pid/status" || return 1
    sleep 0.01
  done
  return 1
} 2>/dev/null

nodes() { # prints every node that was ever started here, brokers first
  local node
  for node in "$dir"/broker-[1-9] "$dir"/zookeeper; do
    [[ -d $node ]] && basename "$node"
  done
  return 0
}

broker_count() { nodes | grep --count '^broker-' || true; }

end_node() {
  local name=$1 signal=${2:-TERM} pid
  if pid=$(pid_of "$name"); then
    kill "-$signal" "$pid" 2>/dev/null || true
    # A process stopped by SIGSTOP handles SIGTERM only after it continues.
    kill -CONT "$pid" 2>/dev/null || true
  fi
}

wait_for_end() {
  local name deadline=$((SECONDS + stop_timeout_s))
  for name in "$@"; do
    while pid_of "$name" >/dev/null; do
      if ((SECONDS >= deadline)); then
        say "$name did not stop within $stop_timeout_s s: killing it"
        end_node "$name" KILL
        deadline=$((SECONDS + 5))
      fi
      sleep 0.05
    done
    rm --force "$dir/$name/pid"
  done
}

# --- The JVM runtime ---

fetch_jars() {
  need java default-jre-headless "$without_jvm"
  mkdir --parents "$libs"
  # Other KAFKA_DIRs share the jars, and may be fetching them right now.
  (flock --timeout "$fetch_timeout_s" 8 && download_jars) 8>"$libs/.lock" ||
    die "could not fetch Apache Kafka $version to $libs"
}

download_jars() {
  [[ ! -f $libs/.complete ]] || return 0
  need mvn maven "$without_jvm"
  say "fetching Apache Kafka $version with Maven (once)"
  local output
  output=$(timeout --foreground "$fetch_timeout_s" mvn --batch-mode --quiet --file "$root/scripts/pom.xml" -Dkafka.version="$version" \
    -DincludeScope=runtime -DoutputDirectory="$libs" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies 2>&1) ||
    die "Maven could not fetch Apache Kafka $version; check the version and the network. Its error:
$(grep --max-count=1 ERROR <<<"$output" || echo "$output")"
  touch "$libs/.complete"
}

# Runs a broker once and keeps the classes that it loads, and what its format wrote.
archive_classes() {
  [[ ! -f $classes ]] || return 0
  local scratch
  scratch=$(mktemp --directory)
  local alone=(env --unset=KAFKA_BROKERS --unset=KAFKA_PROPERTIES KAFKA_DIR="$scratch" KAFKA_RUNTIME=jvm KAFKA_MODE=kraft
    KAFKA_VERSION="$version" KAFKA_PORT="$(free_ports 0 1)" KAFKA_OWNER_PID=$$
    KAFKA_JVM_OPTS="$jvm_options -XX:ArchiveClassesAtExit=$classes.$$" "$root/scripts/kafka.sh")
  say "archiving the classes of Apache Kafka $version (once)"
  { "${alone[@]}" start 1 && "${alone[@]}" stop; } >"$classes.log" 2>&1 ||
    die "Apache Kafka $version does not run here; see $classes.log"
  cp "$scratch/broker-1/data/bootstrap.checkpoint" "$bootstrap"
  rm --recursive --force "$scratch"
  mv "$classes.$$" "$classes" || say "this JVM keeps no archive, so brokers start more slowly; see $classes.log"
}

write_server_properties() {
  local id=$1 count=$2 file="$dir/broker-$1/server.properties"
  local copies=$((count < 3 ? count : 3)) in_sync=$((count < 3 ? 1 : 2)) voters voter roles=broker listeners=""
  {
    cat <<PROPERTIES
log.dirs=$dir/broker-$id/data
num.partitions=3
auto.create.topics.enable=true
log.message.timestamp.type=LogAppendTime
compression.type=uncompressed
default.replication.factor=$copies
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$copies
offsets.topic.num.partitions=3
transaction.state.log.replication.factor=$copies
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=3
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
PROPERTIES
    # Kafka 4 has no old message formats to convert to.
    [[ $version == [123].* ]] && echo log.message.downconversion.enable=true
    if [[ $mode == zookeeper ]]; then
      cat <<PROPERTIES
broker.id=$id
listeners=PLAINTEXT://127.0.0.1:$(broker_port "$id")
zookeeper.connect=127.0.0.1:$zookeeper_port
zookeeper.session.timeout.ms=6000
PROPERTIES
    else
      voters=1@127.0.0.1:$(controller_port 1)
      # With two voters both would be needed for a majority, so a cluster of two has one.
      ((count < 3)) || for voter in 2 3; do voters+=,$voter@127.0.0.1:$(controller_port $voter); done
      if [[ $voters == *"$id@"* ]]; then
        roles=broker,controller
        listeners=,CONTROLLER://127.0.0.1:$(controller_port "$id")
      fi
      cat <<PROPERTIES
node.id=$id
process.roles=$roles
listeners=PLAINTEXT://127.0.0.1:$(broker_port "$id")$listeners
advertised.listeners=PLAINTEXT://127.0.0.1:$(broker_port "$id")
controller.listener.names=CONTROLLER
controller.quorum.voters=$voters
broker.heartbeat.interval.ms=1000
metadata.max.idle.interval.ms=5000
broker.session.timeout.ms=6000
PROPERTIES
    fi
    [[ -z ${KAFKA_PROPERTIES:-} ]] || cat "$KAFKA_PROPERTIES"
  } >"$file"
}

spawn() { # spawn NAME CLASS CONFIG: starts a node detached from the terminal, without our lock
  local home="$dir/$1" signalled=
  # Without its pid file a node could not be stopped later, so a signal has to wait.
  trap 'signalled=143' TERM
  setsid nohup java "${java_options[@]}" "$2" "$3" >>"$home/log" 2>&1 </dev/null 9>&- &
  local pid=$!
  echo "$pid" >"$home/pid"
  trap - TERM
  [[ -z $signalled ]] || exit "$signalled"
  # Between fork and exec the command line is still this script's, so the node would seem to have exited.
  until pid_of "$1" >/dev/null || ! kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
}

format() { # format ID: makes the data directory of a broker, without a JVM if one has shown what to write
  local home="$dir/broker-$1"
  if [[ -f $bootstrap ]]; then
    mkdir --parents "$home/data"
    cp "$bootstrap" "$home/data/"
    # The broker gives the directory an id.
    printf 'version=1\nnode.id=%s\ncluster.id=%s\n' "$1" "$cluster_id" >"$home/data/meta.properties"
    return
  fi
  java "${java_options[@]}" kafka.tools.StorageTool format --ignore-formatted --cluster-id "$cluster_id" \
    --config "$home/server.properties" >"$home/log" 2>&1 9>&- ||
    die "could not format the data directory $home: $(grep --max-count=3 --ignore-case exception "$home/log")"
}

spawn_broker() {
  local id=$1 count=$2 home="$dir/broker-$1"
  pid_of "broker-$id" >/dev/null && return
  port_is_taken "$(broker_port "$id")" &&
    die "port $(broker_port "$id") is taken by another program; choose another one with KAFKA_PORT"
  mkdir --parents "$home"
  write_server_properties "$id" "$count"
  [[ $mode == zookeeper || -f $home/data/meta.properties ]] || format "$id"
  spawn "broker-$id" kafka.Kafka "$home/server.properties"
}

end_of_log() { grep --invert-match '^\s*at ' "$dir/$1/log" | tail --lines=8; }

wait_for_node() { # wait_for_node NAME CHECK…: waits until CHECK succeeds; fails if the process exits
  local name=$1 deadline=$((SECONDS + start_timeout_s))
  shift
  until "$@" >/dev/null; do
    if ! pid_of "$name" >/dev/null && ! respawn_after_session "$name"; then
      die "$name exited during startup; the end of $dir/$name/log:
$(end_of_log "$name")"
    fi
    ((SECONDS < deadline)) || die "$name did not respond within $start_timeout_s s; the end of $dir/$name/log:
$(end_of_log "$name")"
    sleep 0.2
  done
}

# ZooKeeper rejects a restarted broker until the session of the killed one has expired.
respawn_after_session() {
  [[ $mode == zookeeper && $1 == broker-* ]] && tail --lines=40 "$dir/$1/log" | grep --quiet NodeExistsException ||
    return 1
  sleep 1
  spawn "$1" kafka.Kafka "$dir/$1/server.properties"
}

sees_brokers() { port_is_taken "$1" && [[ $(brokers_behind 127.0.0.1 "$1" || echo 0) -ge $2 ]]; }

start_zookeeper() {
  pid_of zookeeper >/dev/null && return
  port_is_taken "$zookeeper_port" && die "port $zookeeper_port (ZooKeeper) is taken; choose another KAFKA_PORT"
  mkdir --parents "$dir/zookeeper"
  cat >"$dir/zookeeper/zookeeper.properties" <<PROPERTIES
dataDir=$dir/zookeeper/data
clientPortAddress=127.0.0.1
clientPort=$zookeeper_port
maxClientCnxns=0
admin.enableServer=false
PROPERTIES
  spawn zookeeper org.apache.zookeeper.server.quorum.QuorumPeerMain "$dir/zookeeper/zookeeper.properties"
  wait_for_node zookeeper port_is_taken "$zookeeper_port"
}

# Serializes commands on one directory: two starts would race for its data.
lock() {
  # A wipe may have removed the file while we waited; such a lock does not exclude other processes.
  until [[ $dir/lock -ef /dev/fd/9 ]]; do
    mkdir --parents "$dir"
    exec 9>"$dir/lock"
    flock --timeout "$lock_timeout_s" 9 || die "another scripts/kafka.sh has held $dir/lock for $lock_timeout_s s"
  done
}

refuse_other_data() {
  local made_by
  made_by=$(cat "$dir/made-by")
  [[ $made_by == "$version $mode $port" ]] ||
    die "$dir contains data of Kafka '$made_by' (version, mode, port), not '$version $mode $port'; run" \
      "'scripts/kafka.sh wipe' first or choose another KAFKA_DIR"
}

start_jvm() {
  local count=$1 had=$2 id
  ((had == 0)) || refuse_other_data
  [[ $mode == kraft || $version == [123].* ]] ||
    die "Kafka $version has no ZooKeeper mode; use KAFKA_MODE=kraft or KAFKA_VERSION=3.9.2"
  fetch_jars
  watch_owner
  echo "$version $mode $port" >"$dir/made-by"
  [[ $mode == kraft ]] || start_zookeeper
  for ((id = 1; id <= count; id++)); do
    spawn_broker "$id" "$count"
  done
  for ((id = 1; id <= count; id++)); do
    wait_for_node "broker-$id" sees_brokers "$(broker_port "$id")" "$count"
  done
  say "Kafka $version is ready at $(addresses "$count") (JVM, $mode, data in $dir)"
}

addresses() {
  local id list=
  for ((id = 1; id <= $1; id++)); do list+=,127.0.0.1:$(broker_port "$id"); done
  echo "${list#,}"
}

# Wipes when the owner exits. The owner may be killed, and then cannot clean up itself.
watch_owner() {
  [[ -n ${KAFKA_OWNER_PID:-} && $(cat "$dir/owner" 2>/dev/null) != "${KAFKA_OWNER_PID:-}" ]] || return 0
  echo "$KAFKA_OWNER_PID" >"$dir/owner"
  # shellcheck disable=SC2016 # expanded by the inner shell
  setsid --fork bash -c 'tail --pid="$1" --follow /dev/null; exec "$2" wipe' _ "$KAFKA_OWNER_PID" "$root/scripts/kafka.sh" \
    >/dev/null 2>&1 </dev/null 9>&-
}

# --- Commands ---

start() {
  local count=$1 had runtime=${KAFKA_RUNTIME:-} reason
  lock
  had=$(broker_count)
  [[ $count -ne 0 ]] || count=$((had > 0 ? had : 1))
  if [[ -z $runtime ]] && ! runs_here && reuse "$count"; then return; fi
  case ${brokers%%,*} in
    "127.0.0.1:$port" | "localhost:$port") ;;
    *) die "no Kafka responds at KAFKA_BROKERS=$brokers; start it, or unset KAFKA_BROKERS to run one here" ;;
  esac
  # docker-compose.yml provides one broker, with a fixed mode and version.
  if [[ -z $runtime ]]; then
    if [[ $count$had${KAFKA_MODE:-}${KAFKA_VERSION:-} == 10 ]] && command -v docker >/dev/null; then
      reason=$(start_docker) && return
      say "docker is not used ($reason); starting Kafka on the JVM instead"
    fi
    runtime=jvm
  fi
  case $runtime in
    docker)
      ((count == 1)) || die "docker-compose.yml has one broker; for $count brokers use KAFKA_RUNTIME=jvm"
      reason=$(start_docker) || die "KAFKA_RUNTIME=docker: $reason; fix that, or use KAFKA_RUNTIME=jvm"
      ;;
    jvm)
      ((had == 0 || count == had)) ||
        die "$dir contains a cluster of $had broker(s), not $count; run 'scripts/kafka.sh wipe' first"
      start_jvm "$count" "$had"
      ;;
    *) die "KAFKA_RUNTIME=$runtime: expected docker or jvm" ;;
  esac
}

runs_here() {
  local name
  for name in $(nodes); do pid_of "$name" >/dev/null && return; done
  return 1
}

reuse() { # reuse COUNT: fails if no Kafka responds
  local address found
  address=$(answering) || return 1
  found=$(brokers_behind "${address%:*}" "${address##*:}")
  ((found >= $1)) ||
    die "the Kafka at $address has $found broker(s), not $1; choose another KAFKA_PORT for a new cluster"
  if [[ -f $marker ]]; then
    watch_owner
    say "Kafka is already running at $address (docker)"
  else
    say "using the Kafka that is already running at $address; this script did not start it and will not stop it"
  fi
}

start_one() {
  lock
  [[ -d $dir/broker-$1 ]] || die "there is no broker $1 in $dir; create it with 'scripts/kafka.sh start N'"
  refuse_other_data
  [[ $mode == kraft ]] || start_zookeeper
  spawn_broker "$1" "$(broker_count)"
  wait_for_node "broker-$1" sees_brokers "$(broker_port "$1")" 1
  say "broker $1 is ready at 127.0.0.1:$(broker_port "$1")"
}

stop_one() {
  lock
  pid_of "broker-$1" >/dev/null || die "broker $1 is not running in $dir"
  end_node "broker-$1"
  wait_for_end "broker-$1"
}

stop() { # stop [SIGNAL [--volumes]]
  local signal=${1:-TERM} names name failed=0
  [[ -d $dir ]] || { say "nothing to stop: $dir does not exist" && return; }
  lock
  # Nodes on the JVM are stopped even if docker fails.
  stop_docker "${@:2}" || failed=1
  mapfile -t names < <(nodes | grep '^broker-' || true)
  for name in "${names[@]}"; do end_node "$name" "$signal"; done
  wait_for_end "${names[@]}"
  # Brokers sign off from ZooKeeper when they stop, so it is stopped last.
  end_node zookeeper "$signal"
  [[ ! -d $dir/zookeeper ]] || wait_for_end zookeeper
  if ((${#names[@]})) || [[ ! -f $marker ]]; then say "stopped ${#names[@]} broker(s) of $dir"; fi
  if ! ((${#names[@]} + failed)) && answering >/dev/null; then
    say "the Kafka at $(answering) was not started by this script and keeps running"
  fi
  return "$failed"
}

wipe() {
  local failed=0
  if [[ $dir == "$root/target/kafka" && (-d $dir/broker-1 || -f $marker) ]] &&
    compgen -G "$root/logs/*.checkpoint" >/dev/null; then
    say "deleting the topics, but logs/ remembers them: move its files away before the consumer reads a new topic"
  fi
  stop KILL --volumes || failed=$?
  # Delete only what this script created: KAFKA_DIR may contain other files.
  rm --recursive --force "$dir"/broker-[1-9] "$dir/zookeeper" "$dir/made-by" "$dir/owner"
  # If docker could not remove the project, keep the marker so that it can be wiped later.
  ((failed)) || rm --force "$marker" "$compose_log"
  rm --force "$dir/lock"
  rmdir "$dir" 2>/dev/null || true
  return "$failed"
}

status() {
  local name pid address
  for name in $(nodes); do
    if pid=$(pid_of "$name"); then echo "$name: running, pid $pid"; else echo "$name: stopped"; fi
  done
  if address=$(answering); then
    echo "Kafka responds at $address: $(brokers_behind "${address%:*}" "${address##*:}") broker(s)"
  else
    echo "no Kafka responds at $brokers"
    return 3
  fi
}

is_count() { [[ $1 =~ ^[1-9]$ ]] || die "$1: expected a number from 1 to 9"; }

case ${1:-} in
  start)
    [[ $# -lt 2 ]] || is_count "$2"
    start "${2:-0}"
    ;;
  start-broker | stop-broker)
    is_count "${2:-none}"
    if [[ $1 == start-broker ]]; then start_one "$2"; else stop_one "$2"; fi
    ;;
  stop) stop ;;
  status) status ;;
  wipe) wipe ;;
  fetch)
    fetch_jars
    archive_classes
    ;;
  help | --help | -h) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
