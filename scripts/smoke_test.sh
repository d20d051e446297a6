#!/bin/sh
# Smoke-test a deployed service: scripts/smoke_test.sh [--public] URL [IMAGE]
#
# Only URL is asked. With --public, for an address that strangers reach, the same host's ports of TorchServe and of the status
# server are tried too, and must not answer. On the server's own machine they do, and perhaps those of another instance.
#
# Needs a POSIX shell and curl. Prints a line per check; exit code 0 if all passed, 1 if one failed, 2 for a usage
# error. From the environment: API_KEY where the gateway wants one, MODEL (the first that /models names),
# CURL_OPTIONS (such as --insecure), CLOSED_PORTS for --public (8080 8081 8082 8083 7070 7071, but not the port of URL).
set -u

public=
if [ "${1:-}" = --public ]; then
    public=yes
    shift
fi
case $#/${1:-} in
    1/-* | 2/-* | 0/*) set -- "" "" "" ;;
esac
if [ $# -gt 2 ]; then
    echo "usage: [API_KEY=...] $0 [--public] URL [IMAGE]" >&2
    exit 2
fi
url=${1%/}
id=smoke-$$
failed=0
command -v curl >/dev/null || { echo "curl is missing: install it." >&2; exit 2; }
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM

# The key is in a file: on the command line every user of the machine could read it.
umask 077
: > "$folder/anonymous"
if [ -n "${API_KEY:-}" ]; then
    printf 'header = "X-API-Key: %s"\n' "$API_KEY" > "$folder/key"
else
    : > "$folder/key"
fi
key=$folder/key

# A bitmap of 16 x 16 green pixels: 54 bytes of header, then 768 of blue, green, red.
bitmap() {
    printf 'BM\066\003\0\0\0\0\0\0\066\0\0\0\050\0\0\0\020\0\0\0\020\0\0\0\001\0\030\0\0\0\0\0\0\003\0\0'
    printf '\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
    pixels=0
    while [ $pixels -lt 256 ]; do
        printf '\060\220\100'
        pixels=$((pixels + 1))
    done
}

# request METHOD PATH [curl options]: status into $status, body into $folder/body, headers into $folder/headers.
request() {
    method=$1 path=$2
    shift 2
    # shellcheck disable=SC2086  # several options in one variable
    status=$(curl --silent --max-time 60 --request "$method" --config "$key" --header "X-Request-Id: $id" \
        --output "$folder/body" --dump-header "$folder/headers" --write-out '%{http_code}' ${CURL_OPTIONS:-} \
        "$@" "$url$path" 2>"$folder/stderr")
    summary="$method $path"
}

# expect STATUS [TEXT]: the last response has this status, and its body contains this text.
expect() {
    if [ "$status" != "$1" ]; then
        report FAILED "$summary returned $status instead of $1: $(head -c 200 "$folder/body" 2>/dev/null | tr -d '\r\n')"
    elif [ -n "${2:-}" ] && ! grep -qF -- "$2" "$folder/body"; then
        report FAILED "$summary returned $status without $2: $(head -c 200 "$folder/body" | tr -d '\r\n')"
    else
        report ok "$summary returns $1 ${2:-}"
    fi
}

# header NAME TEXT: the last response has this header, containing this text.
header() {
    if grep -iE "^$1:" "$folder/headers" 2>/dev/null | grep -qF -- "$2"; then
        report ok "$summary has $1"
    else
        report FAILED "$summary has no header $1 with $2"
    fi
}

report() {
    printf '%-6s %s\n' "$1" "$2"
    [ "$1" = ok ] || failed=1
}

image=${2:-$folder/green.bmp}
[ $# -eq 2 ] || bitmap > "$image"
[ -r "$image" ] || { echo "$image cannot be read: give the path of an image." >&2; exit 2; }
echo "this is not an image" > "$folder/text"
dd if=/dev/zero of="$folder/large" bs=1048576 count=17 2>/dev/null

request GET /livez
if [ "$status" = 000 ]; then
    report FAILED "no response from $url: check that the service runs and that the address is right"
    exit 1
fi
expect 200
request GET /readyz
expect 200
request GET /models
model=${MODEL:-$(sed -n 's/^{"models": *\[{"name": *"\([^"]*\)".*/\1/p' "$folder/body")}
expect 200 "\"${model:=flowers}\""
predict=/predictions/$model

request PUT "$predict" --upload-file "$image"
expect 200 '"predictions"'
header x-request-id "$id"
header server-timing "dur="
request PUT "$predict?top_k=1" --upload-file "$image"
expect 200 '"probability"'
request POST "$predict" --form "file=@$image"
expect 200 '"predictions"'
request PUT "/explanations/$model" --upload-file "$image"
# A network without class maps says so.
if grep -qF " has no heatmaps: " "$folder/body"; then expect 200 '"note"'; else expect 200 '"heatmap"'; fi

# Invalid input: rejected with the service's error body.
request PUT "$predict" --upload-file "$folder/text"
expect 415 '"unsupported_image"'
header x-request-id "$id"
request PUT "$predict" --upload-file "$folder/large"
expect 413 '"error"'
request PUT "$predict?top_k=abc" --upload-file "$image"
expect 422 '"invalid_parameter"'
request GET /no-such-path
expect 404 '"not_found"'
request PUT /predictions/no-such-model --upload-file "$image"
expect 404 '"error"'
request GET "$predict"
expect 405 '"method_not_allowed"'
if [ -s "$key" ]; then
    key=$folder/anonymous
    request PUT "$predict" --upload-file "$image"
    summary="$summary without a key"
    expect 401 '"unauthorized"'
    key=$folder/key
fi

# The page to try the API needs no key, and reaches this address only.
request GET /docs
expect 200 'id="page"'
header content-security-policy "connect-src 'self'"
request GET /openapi.yaml
expect 200 "openapi: 3"

# Operators' endpoints must not be reachable.
request POST "/models?url=http://127.0.0.1/none.mar"
expect 405 '"error"'
request PUT "/models/$model?min_worker=0"
expect 405 '"error"'
request GET /metrics
expect 404 '"not_found"'
request POST /drain
expect 404 '"not_found"'

if [ -n "$public" ]; then
    [ -s "$key" ] || printf '%-6s %s\n' note "without an API key: whoever reaches $url may use it"
    host=${url#*://}
    host=${host%%/*}
    own=
    case $host in
        *]) ;;
        *:*) own=${host##*:} host=${host%:*} ;;
    esac
    for port in ${CLOSED_PORTS:-8080 8081 8082 8083 7070 7071}; do
        [ "$port" != "$own" ] || continue
        # What only TorchServe and the status server say: names of models and metrics, or gRPC.
        text=$(curl --silent --max-time 5 "http://$host:$port/models" "http://$host:$port/metrics" "http://$host:$port/ping"
            curl --silent --max-time 5 --http2-prior-knowledge --request POST --header "Content-Type: application/grpc" \
                --dump-header - --output /dev/null "http://$host:$port/ping")
        case $text in
            *modelName* | *'"models"'* | *ts_inference* | *visionserve_* | *'"status": "'* | *application/grpc*)
                report FAILED "port $port of $host is open: close it" ;;
            *) report ok "port $port of $host is closed" ;;
        esac
    done
fi

if [ $failed -ne 0 ]; then
    echo "The smoke test of $url failed."
    exit 1
fi
echo "The smoke test of $url passed."
