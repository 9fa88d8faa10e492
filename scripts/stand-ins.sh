#!/usr/bin/env bash
# Makes stand-ins for images that no registry can be asked for, from the files of this machine.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib.sh
source "$root/scripts/lib.sh"
cd "$root"

usage() {
  cat <<'TEXT'
usage: scripts/stand-ins.sh IMAGE…

Makes images with the names of official ones, with the same users, paths, volumes and entry points as far as the compose
files and the Dockerfile need them. All of them have the label event-pipeline.stand-in.

  apache/kafka:VERSION, zookeeper:VERSION   this machine's Java, and the jars that scripts/kafka.sh fetches
  prom/prometheus:VERSION                   this machine's Prometheus, whatever its version is
  grafana/grafana:VERSION                   NOT Grafana: serves the provisioned files, see stand-in-grafana.py
  stand-in-rust                             NOT a compiler: `cargo build` hands out what scripts/static.sh has built here,
                                            or the programs in PROGRAMS_DIR
TEXT
}

label=event-pipeline.stand-in
tools=(bash sh env id ls cat cp mv rm mkdir chmod chown dirname basename realpath head tail wc grep sed tr cut sort uname
  hostname sleep date timeout setpriv readlink od touch ln printf test ldd)
work=$(mktemp --directory)
trap 'rm --recursive --force "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# put ROOT FILE [PATH]: copies FILE and the libraries that it needs into ROOT, at PATH or where it is here.
put() {
  local to=$1 file=$2
  install -D --mode=755 "$file" "$to/usr${3:-/bin/$(basename "$file")}"
  put_libraries "$to" "$file"
}

put_libraries() { # put_libraries ROOT FILE…
  local to=$1 library
  shift
  # A script or a static program needs none.
  { ldd "$@" 2>/dev/null | grep --only-matching '/[^ ]*\.so[^ ]*' || true; } | sort --unique | while read -r library; do
    if [[ -f $library ]]; then copy_library "$to" "$library"; fi
  done
}

copy_library() { # copy_library ROOT LIBRARY: under its own name, in the real directory of that name
  local to
  to=$1$(realpath "$(dirname "$2")")
  mkdir --parents "$to"
  cp --dereference --update "$2" "$to/"
}

# A root file system with a shell, the usual tools, and what name resolution needs.
make_base() {
  local to=$work/base dir tool library
  mkdir --parents "$to"/{usr/bin,usr/lib,usr/lib64,tmp,etc,proc,sys,dev,root}
  chmod 1777 "$to/tmp"
  for dir in bin lib lib64; do ln --symbolic "usr/$dir" "$to/$dir"; done
  ln --symbolic bin "$to/usr/sbin"
  for tool in "${tools[@]}"; do
    put "$to" "$(readlink --canonicalize "$(type -P "$tool")")" "/bin/$tool"
  done
  for library in /lib/*-linux-gnu/libnss_{dns,files}.so.2 /lib/*-linux-gnu/libresolv.so.2; do
    copy_library "$to" "$library"
  done
  printf 'root:x:0:0:root:/root:/bin/bash\nappuser:x:1000:1000::/tmp:/bin/bash\n' >"$to/etc/passwd"
  printf 'root:x:0:\nappuser:x:1000:\n' >"$to/etc/group"
  printf 'hosts: files dns\n' >"$to/etc/nsswitch.conf"
  tar --directory "$to" --create . | docker import --change "LABEL $label=base" - stand-in-base >/dev/null
}

# The base, and Java.
make_java() {
  local to=$work/java home settings
  need java default-jre-headless
  home=$(dirname "$(dirname "$(readlink --canonicalize "$(type -P java)")")")
  mkdir --parents "$to$home" "$to/usr/bin" "$to/etc"
  tar --directory "$home" --exclude=./jmods --exclude=./docs --exclude=./man --exclude='./lib/src.zip' --create . |
    tar --directory "$to$home" --extract
  # Debian keeps its settings here, and links to them.
  for settings in /etc/java-*-openjdk; do [[ ! -d $settings ]] || cp --archive "$settings" "$to/etc/"; done
  ln --symbolic "$home/bin/java" "$to/usr/bin/java"
  put_libraries "$to" "$home/bin/java" "$home"/lib/*.so "$home/lib/server/libjvm.so"
  printf 'FROM stand-in-base\nCOPY . /\n' | build "$to" stand-in-java
}

build() { # build DIRECTORY IMAGE: reads the Dockerfile from stdin
  cat >"$work/Dockerfile"
  docker build --quiet --label "$label=$2" --file "$work/Dockerfile" --tag "$2" "$1" >"$work/build.log" 2>&1 ||
    die "cannot build the stand-in for $2: $(tail --lines=3 "$work/build.log")"
}

# jars VERSION: fetches a Kafka and prints the directory with its jars.
jars() {
  KAFKA_VERSION=$1 scripts/kafka.sh fetch >&2
  echo "$root/target/kafka/libs/$1"
}

stand_in_for_kafka() { # stand_in_for_kafka IMAGE VERSION
  local to=$work/kafka libs
  libs=$(jars "$2")
  rm --recursive --force "$to"
  mkdir --parents "$to/opt/kafka/"{bin,config,libs} "$to/etc/kafka/docker"
  cp "$libs"/*.jar "$to/opt/kafka/libs/"
  cat >"$to/opt/kafka/bin/kafka-server-start.sh" <<'SCRIPT'
#!/bin/bash
exec java ${KAFKA_HEAP_OPTS:--Xmx1G -Xms1G} -cp '/opt/kafka/libs/*' kafka.Kafka "$@"
SCRIPT
  # Kafka's own class makes the properties of the environment, as in the official image.
  cat >"$to/etc/kafka/docker/run" <<'SCRIPT'
#!/bin/bash
set -euo pipefail
export CLUSTER_ID=${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}
said=$(java -Xmx256m -cp '/opt/kafka/libs/*' kafka.docker.KafkaDockerWrapper setup --default-configs-dir /etc/kafka/docker \
  --mounted-configs-dir /mnt/shared/config --final-configs-dir /opt/kafka/config 2>&1) ||
  [[ $said == *"already formatted"* ]] || { echo "$said" && exit 1; }
exec /opt/kafka/bin/kafka-server-start.sh /opt/kafka/config/server.properties
SCRIPT
  printf 'broker.id=0\nzookeeper.connect=localhost:2181\nlog.dirs=/tmp/kafka-logs\n' >"$to/opt/kafka/config/server.properties"
  chmod +x "$to/opt/kafka/bin/kafka-server-start.sh" "$to/etc/kafka/docker/run"
  build "$to" "$1" <<'DOCKERFILE'
FROM stand-in-java
COPY . /
RUN mkdir -p /var/lib/kafka/data /etc/kafka/secrets /mnt/shared/config \
 && chown -R 1000:0 /var/lib/kafka /etc/kafka && chown -R 1000:1000 /mnt/shared/config /opt/kafka/config
USER appuser
VOLUME ["/etc/kafka/secrets", "/var/lib/kafka/data", "/mnt/shared/config"]
CMD ["/etc/kafka/docker/run"]
DOCKERFILE
}

stand_in_for_zookeeper() { # stand_in_for_zookeeper IMAGE: has the ZooKeeper of Kafka 3.9.2, the newest one with it
  local to=$work/zookeeper libs
  libs=$(jars 3.9.2)
  mkdir --parents "$to/usr/bin" "$to/opt/zookeeper/libs"
  cp "$libs"/{zookeeper,netty,slf4j,snappy,metrics-core-4,audience,commons-cli,commons-io}*.jar "$to/opt/zookeeper/libs/"
  cat >"$to/usr/bin/start-zookeeper" <<'SCRIPT'
#!/bin/bash
chown -R 1000 /data /datalog /logs
printf 'dataDir=/data\ndataLogDir=/datalog\nclientPort=2181\nadmin.enableServer=%s\n' "${ZOO_ADMINSERVER_ENABLED:-true}" >/conf/zoo.cfg
exec setpriv --reuid=1000 --regid=1000 --clear-groups java $JVMFLAGS -cp '/opt/zookeeper/libs/*' \
  org.apache.zookeeper.server.quorum.QuorumPeerMain /conf/zoo.cfg
SCRIPT
  chmod +x "$to/usr/bin/start-zookeeper"
  build "$to" "$1" <<'DOCKERFILE'
FROM stand-in-java
COPY . /
RUN mkdir -p /data /datalog /logs /conf && chown 1000:1000 /data /datalog /logs /conf
VOLUME ["/data", "/datalog", "/logs"]
CMD ["start-zookeeper"]
DOCKERFILE
}

stand_in_for_prometheus() { # stand_in_for_prometheus IMAGE
  local to=$work/prometheus
  need prometheus prometheus
  put "$to" "$(type -P prometheus)"
  put "$to" "$(type -P promtool)"
  mkdir --parents "$to/prometheus"
  build "$to" "$1" <<'DOCKERFILE'
FROM stand-in-base
COPY . /
RUN chown 65534:65534 /prometheus
USER 65534:65534
VOLUME ["/prometheus"]
WORKDIR /prometheus
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
DOCKERFILE
}

stand_in_for_grafana() { # stand_in_for_grafana IMAGE
  local to=$work/grafana library
  need /usr/bin/python3 python3
  need curl curl
  put "$to" "$(readlink --canonicalize /usr/bin/python3)" /bin/python3
  put "$to" "$(type -P curl)"
  library=$(/usr/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
  mkdir --parents "$to$library"
  put_libraries "$to" "$library"/lib-dynload/*.so
  tar --directory "$library" --exclude=./test --exclude=./dist-packages --exclude=__pycache__ --create . |
    tar --directory "$to$library" --extract
  install -D scripts/stand-in-grafana.py "$to/usr/share/grafana/stand-in-grafana.py"
  build "$to" "$1" <<'DOCKERFILE'
FROM stand-in-base
COPY . /
RUN mkdir -p /var/lib/grafana && chown 472:0 /var/lib/grafana
USER 472
ENTRYPOINT ["python3", "/usr/share/grafana/stand-in-grafana.py"]
DOCKERFILE
}

stand_in_for_rust() { # stand_in_for_rust IMAGE
  local to=$work/rust triple
  triple=$(rustc -vV | sed --quiet 's/^host: //p')
  mkdir --parents "$to/programs" "$to/usr/local/bin" "$to/etc/ssl/certs"
  if [[ -n ${PROGRAMS_DIR:-} ]]; then
    cp "$PROGRAMS_DIR"/{producer,consumer,live,simulate} "$to/programs/"
  else
    scripts/static.sh | while read -r program; do cp "$program" "$to/programs/"; done
  fi
  [[ -e /etc/ssl/certs/ca-certificates.crt ]] || need update-ca-certificates ca-certificates
  cp --dereference /etc/ssl/certs/ca-certificates.crt "$to/etc/ssl/certs/"
  printf '#!/bin/bash\necho "host: %s"\n' "$triple" >"$to/usr/local/bin/rustc"
  # shellcheck disable=SC2016 # expanded by the script
  printf '#!/bin/bash\nmkdir -p target/static/%s/release && cp /programs/* target/static/%s/release/\n' "$triple" "$triple" >"$to/usr/local/bin/cargo"
  printf '#!/bin/bash\nexit 1\n' >"$to/usr/local/bin/cc"
  chmod +x "$to"/usr/local/bin/*
  printf 'FROM stand-in-base\nENV PATH=/usr/local/bin:/usr/bin:/bin\nCOPY . /\n' | build "$to" "$1"
}

[[ ${1:-} != --help && ${1:-} != -h ]] || { usage && exit; }
(($# > 0)) || { usage >&2 && exit 2; }
make_base
[[ " $* " != *" apache/kafka:"* && " $* " != *" zookeeper:"* ]] || make_java
for image; do
  case $image in
    apache/kafka:*) stand_in_for_kafka "$image" "${image#*:}" ;;
    zookeeper:*) stand_in_for_zookeeper "$image" ;;
    prom/prometheus:*) stand_in_for_prometheus "$image" ;;
    grafana/grafana:*) stand_in_for_grafana "$image" ;;
    stand-in-rust) stand_in_for_rust "$image" ;;
    *) die "there is no stand-in for $image" ;;
  esac
done
