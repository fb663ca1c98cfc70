#!/usr/bin/env bash
# Start a real Elasticsearch 8 node on loopback, from Maven Central. See README.md.
#   start.sh run  DATA_DIR [-p PORT] [-n NAME] [-x HEAP] [-S] [-b|-w] [-E 'setting: value']...
#   start.sh stop DATA_DIR [-9]
#   start.sh fetch            (download and unpack only)
set -euo pipefail

KIT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
VERSION=${ES_VERSION:-8.19.21}
CACHE=${ES_CACHE:-/var/tmp/swarming-elasticsearch-$(id -u)}   # must be readable by ES_UID: not under /root
DIST=$CACHE/elasticsearch-$VERSION
ES_UID=${ES_UID:-9200}                           # used only when started as root

die() { echo "start.sh: $*" >&2; exit 1; }

need() {    # need PROGRAM DEBIAN_PACKAGE
    command -v "$1" > /dev/null || die "needs $1 (apt-get install $2)"
}

need javac default-jdk-headless
JAVA=${ES_JAVA_HOME:-$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")}

as_es() {   # Elasticsearch refuses to run as root
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid="$ES_UID" --regid="$ES_UID" --clear-groups "$@"
    else
        "$@"
    fi
}

fetch() {
    mkdir -p "$CACHE"
    [ -O "$CACHE" ] || die "$CACHE belongs to someone else; set ES_CACHE"
    chmod 755 "$CACHE"
    exec 9>"$CACHE/.lock"
    flock 9
    if [ ! -e "$DIST/.ready-$VERSION" ]; then
        need mvn maven
        # JAVA_HOME: Maven itself runs on the same JDK. ES_MVN_ARGS: e.g. -o, -Dmaven.repo.local=...
        rm -rf "$DIST" "$CACHE/.markers"
        # shellcheck disable=SC2086
        JAVA_HOME=$JAVA mvn -B -q -Dstyle.color=never -f "$KIT/pom.xml" ${ES_MVN_ARGS:-} \
            "-Des.version=$VERSION" "-Des.unpack=$CACHE" initialize >&2
        chmod +x "$DIST"/bin/*
        local build=$CACHE/.plugin-$VERSION plugin=$DIST/plugins/swarming
        rm -rf "$build"; mkdir -p "$build" "$plugin"
        "$JAVA/bin/javac" --release 17 -cp "$DIST/lib/*" -d "$build" "$KIT/plugin/RootPlugin.java"
        "$JAVA/bin/jar" --create --file "$plugin/swarming.jar" -C "$build" .
        printf '%s\n' name=swarming "description=fills gaps of the Maven zip" version=1 java.version=17 \
            "elasticsearch.version=$VERSION" classname=swarming.elasticsearch.RootPlugin \
            > "$plugin/plugin-descriptor.properties"
        rm -rf "$build"
        touch "$DIST/.ready-$VERSION"
    fi
    flock -u 9; exec 9>&-
}

alive() { [ -s "$1/es.pid" ] && kill -0 "$(cat "$1/es.pid")" 2>/dev/null; }

stop() {
    local dir=$1 sig=${2:--TERM} pid
    alive "$dir" || return 0
    pid=$(cat "$dir/es.pid")
    kill "$sig" "$pid"
    for _ in $(seq 300); do kill -0 "$pid" 2>/dev/null || { rm -f "$dir/es.pid"; return 0; }; sleep 0.1; done
    die "pid $pid did not stop in 30 s"
}

NODE='' REMOVE=''   # the directory of a node that ends with this script, and whether it goes, too
finish() {
    [ -n "$NODE" ] || return 0
    stop "$NODE" || true
    [ -z "$REMOVE" ] || rm -rf "$NODE"
}
trap finish EXIT
trap 'exit 143' TERM INT HUP

run() {
    local dir=$1; shift
    local port=9200 name='' heap=512m secure='' background='' watch='' extra='' opt
    while getopts p:n:x:E:Sbw opt; do
        case $opt in
            p) port=$OPTARG ;; n) name=$OPTARG ;; x) heap=$OPTARG ;;
            S) secure=true ;; b) background=1 ;; w) watch=1 ;;
            E) extra+=$OPTARG$'\n' ;; *) exit 2 ;;
        esac
    done
    name=${name:-es-$port}
    mkdir -p "$dir"; dir=$(cd "$dir" && pwd)
    ! alive "$dir" || die "already running on $dir, pid $(cat "$dir/es.pid")"
    fetch

    [ -z "$secure" ] || need openssl openssl
    local conf=$dir/conf scheme=http curl=(curl -s -o /dev/null -w '%{http_code}')
    mkdir -p "$dir"/{data,logs,tmp,conf/jvm.options.d}
    rm -f "$dir/es.pid"
    cp "$DIST/config/log4j2.properties" "$DIST"/config/{roles.yml,role_mapping.yml} "$conf/"
    touch "$conf/users" "$conf/users_roles"
    printf '%s\n' "-Xms$heap" "-Xmx$heap" -XX:+UseG1GC -XX:-AlwaysPreTouch -XX:+ExitOnOutOfMemoryError \
        "-XX:ErrorFile=$dir/logs/hs_err_%p.log" "-Djava.io.tmpdir=$dir/tmp" \
        '20-:--add-modules=jdk.incubator.vector' > "$conf/jvm.options"
    cat > "$conf/elasticsearch.yml" <<YML
cluster.name: $name
node.name: $name
path.data: $dir/data
path.logs: $dir/logs
path.repo: $dir/data/repo
http.host: 127.0.0.1
http.port: $port
transport.host: 127.0.0.1
discovery.type: single-node
cluster.routing.allocation.disk.threshold_enabled: false
xpack.security.enabled: ${secure:-false}
${extra}
YML
    [ "$(id -u)" != 0 ] || chown -R "$ES_UID:$ES_UID" "$dir"
    as_es test -w "$dir/data" || die "$dir is not reachable for uid $ES_UID"

    local env=(env -u JAVA_HOME "HOME=$dir" "ES_JAVA_HOME=$JAVA" "ES_PATH_CONF=$conf" "ES_TMPDIR=$dir/tmp")
    if [ -n "$secure" ]; then
        scheme=https
        if [ ! -e "$conf/ca.crt" ]; then
            ( cd "$conf"; umask 077
              openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -keyout ca.key -out ca.crt -subj "/CN=swarming test CA" \
                  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
              openssl req -newkey rsa:2048 -nodes -keyout http.key -out http.csr -subj /CN=localhost
              printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' > http.ext
              openssl x509 -req -in http.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 \
                  -extfile http.ext -out http.crt
              openssl rand -hex 12 > elastic.password
            ) 2> "$dir/logs/openssl.log" || die "openssl failed: $dir/logs/openssl.log"
            [ "$(id -u)" != 0 ] || chown -R "$ES_UID:$ES_UID" "$conf"
            as_es "${env[@]}" "$DIST/bin/elasticsearch-keystore" create -s
            as_es "${env[@]}" "$DIST/bin/elasticsearch-keystore" add -s -x -f bootstrap.password < "$conf/elastic.password"
        fi
        cat >> "$conf/elasticsearch.yml" <<YML
xpack.security.enrollment.enabled: false
xpack.security.http.ssl:
  enabled: true
  key: http.key
  certificate: http.crt
  certificate_authorities: [ca.crt]
YML
        curl+=(--cacert "$conf/ca.crt" -u "elastic:$(cat "$conf/elastic.password")")
    fi

    local url=$scheme://127.0.0.1:$port
    NODE=$dir REMOVE=$watch
    ( cd "$dir"; as_es "${env[@]}" "$DIST/bin/elasticsearch" -d -p "$dir/es.pid" ) > "$dir/logs/start.out" 2>&1 < /dev/null \
        || { tail -n 25 "$dir/logs/start.out" >&2; die "Elasticsearch did not start"; }
    local up=''
    for _ in $(seq 600); do
        [ "$("${curl[@]}" "$url/_cluster/health?wait_for_status=yellow&timeout=1s" || true)" != 200 ] || { up=1; break; }
        alive "$dir" || { tail -n 25 "$dir/logs/start.out" >&2; die "Elasticsearch died"; }
        sleep 0.1
    done
    [ -n "$up" ] || { REMOVE=''; die "not ready in time: see $dir/logs"; }
    local pid; pid=$(cat "$dir/es.pid")
    {
        echo "ES_URL=$url"; echo "ES_PID=$pid"
        [ -z "$secure" ] || { echo "ES_USER=elastic"; echo "ES_PASSWORD=$(cat "$conf/elastic.password")"; echo "ES_CA=$conf/ca.crt"; }
    } | tee "$dir/es.env"
    if [ -n "$background" ]; then NODE=''; return 0; fi
    if [ -n "$watch" ]; then   # -w: as long as whoever started us keeps stdin open
        while kill -0 "$pid" 2>/dev/null; do
            local rc=0 line=''
            read -r -t 0.5 line || rc=$?
            [ "$line" != keep ] || REMOVE=''
            [ "$rc" = 0 ] || [ "$rc" -gt 128 ] || return 0
        done
    fi
    while kill -0 "$pid" 2>/dev/null; do sleep 0.5 & wait $! || true; done
    REMOVE=''
    die "Elasticsearch (pid $pid) ended by itself"
}

case ${1:-} in
    run)   need curl curl; need flock util-linux; [ $# -ge 2 ] || die "run DATA_DIR ..."; shift; run "$@" ;;
    stop)  [ $# -ge 2 ] || die "stop DATA_DIR";    stop "$2" "${3:--TERM}" ;;
    fetch) fetch; echo "$DIST" ;;
    *)     sed -n '2,5p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
