#!/usr/bin/env bash
# The main job, step by step: a cluster, an image, a Deployment behind a Service,
# requests, a roll-out under load, a roll-back, and nothing left at the end.
#
#   examples/hello/run.sh          leaves the cluster running until Ctrl-C
#   examples/hello/run.sh --once   takes it down at the end; exit code 0 or 1
set -euo pipefail
cd "$(dirname "$0")/../.."

SAMPAN=${SAMPAN:-bin/sampan}
HELLO=examples/hello/bin/hello
once=false
[ "${1:-}" = --once ] && once=true

bold='' plain=''
[ -t 1 ] && bold=$'\e[1m' plain=$'\e[0m'
step() { printf '\n%s==> %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }
kubectl() { show "$SAMPAN" kubectl "$@"; }
value() { "$SAMPAN" kubectl get -n hello "$1" -o "jsonpath=$2"; }

hammer=
finished=false
finish() {
	code=$?
	trap - EXIT INT TERM
	[ -n "$hammer" ] && kill "$hammer" 2>/dev/null
	if $finished; then
		code=0 # Ctrl-C is how it ends
	elif [ $code -ne 0 ] && [ $code -ne 130 ]; then
		step "That did not work (exit code $code). What the cluster says:"
		"$SAMPAN" kubectl get pods -A -o wide || true
		"$SAMPAN" kubectl get events -A --sort-by=.lastTimestamp | tail -n 20 || true
	fi
	step "Taking the cluster down"
	show "$SAMPAN" down || code=1
	left || code=1
	exit $code
}

# left says what a cluster has left on the machine, if anything; a dead process
# that nobody has asked for its exit code (Z) is init's to clear away.
left() {
	found=$(grep -o ' /run/sampan[^ ]*\| /var/lib/sampan[^ ]*' /proc/mounts
		ls -d /sys/class/net/sampan0 /sys/fs/cgroup/sampan /sys/fs/cgroup/*/sampan /run/sampan 2>/dev/null
		grep -ho '^[0-9]* (sampan-keeper) [^Z]' /proc/[0-9]*/stat 2>/dev/null)
	[ -z "$found" ] && return 0
	echo "left behind: $found"
	return 1
}
trap finish EXIT
trap 'exit 130' INT TERM

step "A cluster"
show "$SAMPAN" up --detach

step "Two images"
show "$SAMPAN" build -t hello:v1 --build-arg VERSION=v1 examples/hello
show "$SAMPAN" build -t hello:v2 --build-arg VERSION=v2 examples/hello

step "A Deployment of three behind a Service"
kubectl apply -f examples/hello/hello.yaml
kubectl rollout status -n hello deployment/hello --timeout=60s
kubectl get all -n hello -o wide

step "Requests reach all three: through the ClusterIP, the NodePort and the DNS name"
ip=$(value service/hello '{.spec.clusterIP}')
node=$("$SAMPAN" kubectl get nodes -o 'jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}')
pod=$("$SAMPAN" kubectl get pods -n hello -o 'jsonpath={.items[0].metadata.name}')
show "$HELLO" get -n 300 -distinct 3 "http://$ip/"
show "$HELLO" get -n 300 -distinct 3 "http://$node:30080/"
kubectl exec -n hello "$pod" -- /hello get -n 300 -distinct 3 http://hello.hello.svc.cluster.local/

step "How that pod came to be"
show "$SAMPAN" trace "pod/$pod" -n hello

step "Five of them, then a new version while requests keep coming, then back"
kubectl scale -n hello deployment/hello --replicas=5
kubectl rollout status -n hello deployment/hello --timeout=60s
"$HELLO" get -n 0 -every 5ms -quiet "http://$ip/" >/tmp/hello-hammer.$$ 2>&1 &
hammer=$!
kubectl set image -n hello deployment/hello hello=hello:v2
kubectl rollout status -n hello deployment/hello --timeout=120s
show "$HELLO" get -n 300 -distinct 5 "http://$ip/"
kubectl rollout undo -n hello deployment/hello
kubectl rollout status -n hello deployment/hello --timeout=120s
kill "$hammer"
wait "$hammer" || { cat "/tmp/hello-hammer.$$"; exit 1; }
hammer=
printf 'meanwhile: '
cat "/tmp/hello-hammer.$$"
rm -f "/tmp/hello-hammer.$$"

step "Away with it"
kubectl delete -f examples/hello/hello.yaml --timeout=60s
left=$("$SAMPAN" kubectl get all -n hello -o name)
[ -z "$left" ] || { echo "still there: $left"; exit 1; }

finished=true
if ! $once; then
	step "The cluster is yours until Ctrl-C. In another terminal, for example:"
	cat <<-EOF
	  $SAMPAN kubectl get pods -A
	  $SAMPAN kubectl apply -f examples/hello/hello.yaml
	  $SAMPAN why deployment/hello -n hello
	  $SAMPAN images
	EOF
	while :; do sleep 3600 & wait $!; done
fi
