#!/bin/sh
# Ask a deployed service what its users will ask: scripts/smoke_test.sh URL [PHOTOGRAPH]
#
# Needs a POSIX shell and curl. Prints a line per check; exit code 0 when all passed, 1 when one failed, 2 when called
# wrongly. From the environment: API_KEY where the gateway wants one, MODEL (flowers), CURL_OPTIONS (such as --insecure).
set -u

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: [API_KEY=...] $0 URL [PHOTOGRAPH]" >&2
    exit 2
fi
url=${1%/}
model=${MODEL:-flowers}
predict=/predictions/$model
id=smoke-$$
failed=0
command -v curl >/dev/null || { echo "curl is missing: install it." >&2; exit 2; }
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM

# The key stands in a file: on the command line every user of the machine could read it.
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

# ask METHOD PATH [curl's options]: status into $status, body into $folder/body, headers into $folder/headers.
ask() {
    method=$1 path=$2
    shift 2
    # shellcheck disable=SC2086  # several options in one variable
    status=$(curl --silent --max-time 60 --request "$method" --config "$key" --header "X-Request-Id: $id" \
        --output "$folder/body" --dump-header "$folder/headers" --write-out '%{http_code}' ${CURL_OPTIONS:-} \
        "$@" "$url$path" 2>"$folder/complaint")
    asked="$method $path"
}

# answers STATUS [TEXT]: the last answer has this status and its body this text.
answers() {
    if [ "$status" != "$1" ]; then
        report FAILED "$asked answered $status instead of $1: $(head -c 200 "$folder/body" 2>/dev/null | tr -d '\r\n')"
    elif [ -n "${2:-}" ] && ! grep -qF -- "$2" "$folder/body"; then
        report FAILED "$asked answered $status without $2: $(head -c 200 "$folder/body" | tr -d '\r\n')"
    else
        report ok "$asked answers $1 ${2:-}"
    fi
}

# header NAME TEXT: the last answer has this header, and this text in it.
header() {
    if grep -iE "^$1:" "$folder/headers" 2>/dev/null | grep -qF -- "$2"; then
        report ok "$asked has $1"
    else
        report FAILED "$asked has no header $1 with $2"
    fi
}

report() {
    printf '%-6s %s\n' "$1" "$2"
    [ "$1" = ok ] || failed=1
}

photograph=${2:-$folder/green.bmp}
[ $# -eq 2 ] || bitmap > "$photograph"
[ -r "$photograph" ] || { echo "$photograph cannot be read: name a photograph." >&2; exit 2; }
echo "this is no photograph" > "$folder/text"
dd if=/dev/zero of="$folder/large" bs=1048576 count=17 2>/dev/null

ask GET /livez
if [ "$status" = 000 ]; then
    report FAILED "nothing answers at $url: is it started, is the address right?"
    exit 1
fi
answers 200
ask GET /readyz
answers 200
ask GET /models
answers 200 "\"$model\""

ask PUT "$predict" --upload-file "$photograph"
answers 200 '"predictions"'
header x-request-id "$id"
header server-timing "dur="
ask PUT "$predict?top_k=1" --upload-file "$photograph"
answers 200 '"probability"'
ask POST "$predict" --form "file=@$photograph"
answers 200 '"predictions"'
ask PUT "/explanations/$model" --upload-file "$photograph"
answers 200 '"heatmap"'

# Bad input: refused, in our format.
ask PUT "$predict" --upload-file "$folder/text"
answers 415 '"unsupported_image"'
header x-request-id "$id"
ask PUT "$predict" --upload-file "$folder/large"
answers 413 '"error"'
ask PUT "$predict?top_k=abc" --upload-file "$photograph"
answers 422 '"invalid_parameter"'
ask GET /no-such-path
answers 404 '"not_found"'
ask PUT /predictions/no-such-model --upload-file "$photograph"
answers 404 '"error"'
ask GET "$predict"
answers 405 '"method_not_allowed"'
if [ -s "$key" ]; then
    key=$folder/anonymous
    ask PUT "$predict" --upload-file "$photograph"
    asked="$asked without a key"
    answers 401 '"unauthorized"'
    key=$folder/key
fi

# What is for operators only is not to be reached from here.
ask POST "/models?url=http://127.0.0.1/none.mar"
answers 405 '"error"'
ask PUT "/models/$model?min_worker=0"
answers 405 '"error"'
ask GET /metrics
answers 404 '"not_found"'
ask POST /drain
answers 404 '"not_found"'
host=${url#*://}
host=${host%%/*}
host=${host%:*}
for port in 8081 8082 7071; do
    # TorchServe's own answers, and only those, would name a model or a metric of its.
    found=$(curl --silent --max-time 5 "http://$host:$port/models" "http://$host:$port/metrics" 2>/dev/null)
    case $found in
        *modelName* | *ts_inference* | *visionserve_*) report FAILED "port $port of $host is open: close it" ;;
        *) report ok "port $port of $host is closed" ;;
    esac
done

if [ $failed -ne 0 ]; then
    echo "The smoke test of $url failed."
    exit 1
fi
echo "The smoke test of $url passed."
