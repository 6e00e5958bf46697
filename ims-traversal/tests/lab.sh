#!/usr/bin/env bash
# The programs against real servers behind real firewalls, in the laboratory's network namespaces.
# Run as root from anywhere. Prints a line for each case; exit code 0 when none failed.
#
#   LAB         the laboratory's folder (default: ../shared/lab beside the project)
#   LAB_ONLY    run only the variants named here
#   LAB_SECONDS begin no variant after so many seconds (default: no limit)
#   BIN         where the programs are (default: built now, release)
set -uo pipefail
cd "$(dirname "$0")/../.."

LAB=${LAB:-../shared/lab}
lab=$LAB/lab
ONLY=${LAB_ONLY:-open nat cone dual udpblock fw443 proxy idle own}
work=$(mktemp -d)
passed=0 failed=0

if [ -z "${BIN:-}" ]; then
	cargo build --quiet --locked --release -p ims-traversal --examples || exit 1
	BIN=${CARGO_TARGET_DIR:-$PWD/target}/release/examples
fi

finish() {
	"$lab" down >/dev/null 2>&1
	rm -rf "$work"
}
trap finish EXIT

report() { # report NAME CODE [DETAIL]
	if [ "$2" -eq 0 ]; then
		passed=$((passed + 1))
		printf 'ok    %s\n' "$1"
	else
		failed=$((failed + 1))
		printf 'FAIL  %s\n' "$1"
		[ -n "${3:-}" ] && printf '%s\n' "$3" | sed 's/^/      /' | tail -n 12
	fi
}

. ims-traversal/tests/lab/sip.sh

up() { # up VARIANT: 1 when it is not wanted
	case " $ONLY " in *" $1 "*) ;; *) return 1 ;; esac
	if [ -n "${LAB_SECONDS:-}" ] && [ "$SECONDS" -ge "$LAB_SECONDS" ]; then
		printf 'skipped: variant %s, after %s seconds\n' "$1" "$SECONDS"
		return 1
	fi
	if ! out=$("$lab" up "$1" 2>&1); then
		report "lab up $1" 1 "$out"
		return 1
	fi
	eval "$("$lab" env)"
}

# Not by `lab exec`, which may read the other side's description away while it starts.
# pair NAME EXPECTED-KIND "ARGS OF UE" "ARGS OF FAR": two peers, one in ue, one in far. EXPECTED-KIND
# is the kind of the UE's selected candidate, or "any".
pair() {
	local name="$LAB_VARIANT: $1" kind=$2 to_ue=$work/to-ue to_far=$work/to-far
	rm -f "$to_ue" "$to_far"
	mkfifo "$to_ue" "$to_far"
	# shellcheck disable=SC2086
	timeout 90 ip netns exec "$LAB_NS-ue" "$BIN/ice-peer" --controlling --name ue --ca "$LAB_CA" $3 \
		<>"$to_ue" 2>"$work/ue.err" | tee "$work/ue.log" >"$to_far" &
	local ue=$!
	# shellcheck disable=SC2086
	timeout 90 ip netns exec "$LAB_NS-far" "$BIN/ice-peer" --controlled --name far --ca "$LAB_CA" $4 \
		<>"$to_far" 2>"$work/far.err" | tee "$work/far.log" >"$to_ue" &
	local far=$!
	wait "$ue"
	wait "$far"
	local code=0 selected
	grep -q '"type":"done"' "$work/ue.log" || code=1
	grep -q '"type":"done"' "$work/far.log" || code=1
	if [ "$kind" != any ]; then
		selected=$(grep -o '"local":"[^"]*"' "$work/ue.log" | head -n 1)
		case $selected in *"typ $kind"*) ;; *) code=1 ;; esac
	fi
	report "$name" "$code" "$(tail -n 3 "$work"/ue.log "$work"/far.log "$work"/ue.err "$work"/far.err)"
}

# refused NAME TEXT ARGS...: a peer in ue that must say why and end with exit code 1.
refused() {
	local name="$LAB_VARIANT: $1" text=$2 out code
	shift 2
	out=$(timeout 40 "$lab" exec ue "$BIN/ice-peer" --controlling --timeout 15 --policy relay "$@" </dev/null 2>&1)
	code=$?
	if [ $code -eq 1 ] && printf '%s' "$out" | grep -q "\"type\":\"failed\".*$text"; then
		report "$name" 0
	else
		report "$name" 1 "exit code $code: $out"
	fi
}

# turn NAME PATTERN ARGS...: turn-client in ue; its last line must match PATTERN.
turn() {
	local name="$LAB_VARIANT: turn-client, $1" pattern=$2 out code
	shift 2
	out=$(timeout 100 "$lab" exec ue "$BIN/turn-client" --json --ca "$LAB_CA" "$@" 2>&1)
	code=$?
	printf '%s' "$out" | tail -n 1 | grep -q "$pattern" || code=1
	report "$name" $code "$out"
}

# turn_passive NAME ARGS...: the same with a connection from the peer, which must get its 1,000 lines back.
turn_passive() {
	local name="$LAB_VARIANT: turn-client, $1" client relayed='' code=1
	shift
	timeout 40 ip netns exec "$LAB_NS-ue" "$BIN/turn-client" --json --ca "$LAB_CA" --tcp-relay --accept 1 \
		--permit "$LAB_PEER_IP" "$@" >"$work/turn-client.log" 2>&1 &
	client=$!
	for _ in $(seq 50); do
		grep -q permitted "$work/turn-client.log" && break
		sleep 0.1
	done
	relayed=$(sed -n 's/.*"relayed":"\([^"]*\)".*/\1/p' "$work/turn-client.log")
	seq 1000 >"$work/lines"
	# The relay may be told of the peer a moment before it is bound: the lines wait.
	if [ -n "$relayed" ]; then
		{ cat "$work/lines" && sleep 2; } |
			timeout 20 ip netns exec "$LAB_NS-peer" socat -t 5 - "TCP:$relayed,bind=$LAB_PEER_IP" >"$work/echoed" 2>&1
		cmp -s "$work/lines" "$work/echoed" && code=0
	fi
	wait "$client" || code=1
	report "$name" $code "$(cat "$work/turn-client.log")"
}

# turn_streams NAME ARGS...: two relayed TCP streams, so three connections to the server.
turn_streams() {
	local name=$1 echo
	shift
	ip netns exec "$LAB_NS-peer" socat "TCP-LISTEN:3482,bind=$LAB_PEER_IP,fork,reuseaddr" PIPE &
	echo=$!
	sleep 0.2
	turn "$name" '"type":"done","echoed":100,.*"connections":3,"closed":true' --tcp-relay --messages 50 --interval 5 \
		--size 1000 --peer "$LAB_PEER_IP:3481" --peer "$LAB_PEER_IP:3482" "$@"
	kill "$echo" 2>/dev/null
}

# turn_lost NAME ARGS...: the server is started anew while turn-client works, which must say so and end.
turn_lost() {
	local name="$LAB_VARIANT: turn-client, $1" client code
	shift
	timeout 40 ip netns exec "$LAB_NS-ue" "$BIN/turn-client" --json --ca "$LAB_CA" "$@" \
		>"$work/turn-client.log" 2>&1 &
	client=$!
	sleep 1.5
	"$lab" restart turn >/dev/null 2>&1
	wait "$client"
	code=$?
	grep -q '"type":"failed".*allocation is lost' "$work/turn-client.log" && [ $code -eq 1 ]
	report "$name" $? "$(cat "$work/turn-client.log")"
}

user="--username ${LAB_TURN_USER:-ue} --password ue-secret"
turn_udp="--turn turn:turn.lab.test $user"
turn_80="--turn turn:turn.lab.test:80?transport=tcp $user"
turn_443="--turn turns:turn.lab.test:443 $user"

rest() { # credentials for the server with the shared secret
	local name secret=${LAB_TURN_REST_SECRET:-rest-secret}
	name=$(($(date +%s) + 600)):lab
	printf -- '--username %s --password %s' "$name" \
		"$(printf %s "$name" | openssl dgst -sha1 -hmac "$secret" -binary | base64)"
}

if up open; then
	pair "hosts" host "" ""
	pair "two components" host "--components 2" "--components 2"
	pair "relay over UDP" relay "$turn_udp --policy relay" ""
	pair "relay over TCP 80" relay "$turn_80 --policy relay" ""
	pair "relay over TLS 443" relay "$turn_443 --policy relay" ""
	pair "relay to relay" relay "$turn_udp --policy relay" "$turn_udp --policy relay"
	pair "shared-secret credentials, UDP" relay "--turn turn:turn-rest.lab.test $(rest) --policy relay" ""
	pair "shared-secret credentials, TLS 443" relay "--turn turns:turn-rest.lab.test:443 $(rest) --policy relay" ""
	refused "wrong password" "rejected user name or password" --turn turn:turn.lab.test --username ue --password wrong
	refused "wrong password over TLS" "rejected user name or password" --ca "$LAB_CA" --turn turns:turn.lab.test:443 --username ue --password wrong
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=other \
		-keyout "$work/other.key" -out "$work/other.pem" 2>/dev/null
	refused "unknown issuer" "TLS certificate" --ca "$work/other.pem" --turn turns:turn.lab.test:443 $user
	refused "nobody listens" "TCP connection" --turn "turn:peer.lab.test:81?transport=tcp" $user
	refused "no TURN server there" "does not answer\|cannot be reached" --turn turn:peer.lab.test:3480 $user
	done='"type":"done","echoed":10,.*"closed":true'
	for way in turn:turn.lab.test "turn:turn.lab.test:80?transport=tcp" turns:turn.lab.test:443; do
		turn "$way" "$done" "$way" $user --peer "$LAB_PEER_IP:3480"
	done
	turn "indications" "$done" turn:turn.lab.test $user --peer "$LAB_PEER_IP:3480" --no-channel
	turn "shared-secret credentials" "$done" turn:turn-rest.lab.test --rest-secret "$LAB_TURN_REST_SECRET" \
		--peer "$LAB_PEER_IP:3480"
	sip_open
fi
if up nat; then
	pair "symmetric NAT, STUN" any "--stun stun:turn.lab.test" ""
	pair "symmetric NAT, TURN" any "$turn_udp" "$turn_udp"
fi
if up cone; then
	pair "cone NAT, STUN" any "--stun stun:turn.lab.test" "--stun stun:turn.lab.test"
fi
if up dual; then
	pair "two symmetric NATs, UDP relay" any "$turn_udp" "$turn_udp"
fi
if up udpblock; then
	pair "TCP 80" relay "$turn_80" ""
	pair "TLS 443" relay "$turn_443" "$turn_udp"
fi
if up fw443; then
	pair "TCP 80" relay "$turn_80" ""
	pair "TLS 443" relay "$turn_443" ""
	pair "TLS 443, both relayed" relay "$turn_443" "$turn_udp --policy relay"
	refused "UDP is swallowed" "does not answer" $turn_udp
	turn_streams "two relayed TCP streams, TLS 443" turns:turn.lab.test:443 $user
	turn_streams "two relayed TCP streams, TCP 80" "turn:turn.lab.test:80?transport=tcp" $user
	turn_streams "two relayed TCP streams, shared-secret credentials" turns:turn-rest.lab.test:443 \
		--rest-secret "$LAB_TURN_REST_SECRET"
	turn_passive "a peer connects, TLS 443" turns:turn.lab.test:443 $user
	turn_lost "the server starts anew, TLS 443" turns:turn.lab.test:443 $user --peer "$LAB_PEER_IP:3480" --messages 1000
	# Nonces live 60 s: the allocation is given back with another one.
	turn "a nonce that has grown old" '"type":"done","echoed":75,.*"closed":true' turns:turn.lab.test:443 $user \
		--peer "$LAB_PEER_IP:3480" --messages 75 --interval 1000 --timeout 90
	own_behind --hold 8
	sip_fw443
fi
if up proxy; then
	auth=${LAB_PROXY_USER}:${LAB_PROXY_PASSWORD}
	port=$LAB_PROXY_PORT
	pair "squid, Digest" relay "$turn_443 --proxy http://$auth@$LAB_PROXY_IP:$port" ""
	pair "squid, no credentials" relay "$turn_443 --proxy http://$LAB_PROXY_OPEN_IP:$port" ""
	pair "squid, Digest only" relay "$turn_443 --proxy http://$auth@$LAB_PROXY_DIGEST_IP:$port" ""
	pair "squid, Basic only" relay "$turn_443 --proxy http://$auth@$LAB_PROXY_BASIC_IP:$port" ""
	pair "tinyproxy, Basic" relay "$turn_443 --proxy http://$auth@$LAB_TINYPROXY_IP:$port" ""
	pair "squid, shared-secret credentials" relay \
		"--turn turns:turn-rest.lab.test:443 $(rest) --proxy http://$LAB_PROXY_OPEN_IP:$port" ""
	for proxy in "squid, Digest=$auth@$LAB_PROXY_DIGEST_IP" "squid=$LAB_PROXY_OPEN_IP" "tinyproxy=$auth@$LAB_TINYPROXY_IP"; do
		turn_streams "two relayed TCP streams, ${proxy%%=*}" turns:turn.lab.test:443 $user \
			--proxy "http://${proxy#*=}:$port"
	done
	turn_passive "a peer connects, through squid" turns:turn.lab.test:443 $user \
		--proxy "http://$auth@$LAB_PROXY_IP:$port"
	turn "shared-secret credentials, through squid" '"type":"done","echoed":10,.*"connections":1,' \
		turns:turn-rest.lab.test:443 --rest-secret "$LAB_TURN_REST_SECRET" --peer "$LAB_PEER_IP:3480" \
		--proxy "http://$LAB_PROXY_OPEN_IP:$port"
	refused "wrong proxy password" "user name or password was rejected" --ca "$LAB_CA" $turn_443 \
		--proxy "http://web:wrong@$LAB_PROXY_DIGEST_IP:$port"
	refused "proxy wants credentials" "credentials are asked for" --ca "$LAB_CA" $turn_443 \
		--proxy "http://$LAB_PROXY_DIGEST_IP:$port"
	refused "proxy forbids the port" "status 403" --turn "turn:turn.lab.test:5349?transport=tcp" $user \
		--proxy "http://$LAB_PROXY_OPEN_IP:$port"
	refused "no proxy is asked for the port of plain STUN" "no CONNECT to port 3478" \
		--turn "turn:turn.lab.test:3478?transport=tcp" $user --proxy "http://$LAB_PROXY_OPEN_IP:$port"
	own_behind --proxy "$LAB_PROXY_OPEN_IP:$port" --hold 8
	own_behind --proxy "$LAB_TINYPROXY_IP:$port" --proxy-user "$auth"
	sip_proxy
fi
if up idle; then
	pair "silent flows are forgotten: kept alive for 30 s" relay "$turn_443 --messages 1500 --timeout 60" "--messages 10 --timeout 60 --linger 40"
	own_behind --hold 20
	sip_idle
fi

# own_relays: turn-server before turnutils_uclient in its modes, all at the same time. Not -Z, which names
# ADDITIONAL-ADDRESS-FAMILY by the number of a draft (0x8032), nor -R, which often waits for ever, before coturn
# as well.
own_relays() {
	local tls="-t -S -F AESGCM -p 443" v4="-c -e $LAB_PEER_IP -r 3480" v6="-c -x -e $LAB_PEER_IP6 -r 3480"
	local modes=(
		"$v4" "$v4 -s" "$v4 -t" "$v4 -t -s" "$v4 $tls" "$v4 $tls -s" # channels, indications
		"$v6" "$v6 -s" "$v6 $tls"                                     # to IPv6 peers
		"-c -y" "-c -y -t" "-c -y $tls"                               # from client to client
		"-T -p 80" "-T -S -F AESGCM -p 443"                           # connections (RFC 6062)
		"$v4 -X" "$v4 -g" "$v4 -g -s" "$v4 -D -t"                     # family, DF, padding
		"$v4 -G"                                                      # more requests than it needs
	)
	local i out pids=()
	for i in "${!modes[@]}"; do
		# shellcheck disable=SC2086
		timeout 60 "$lab" exec ue turnutils_uclient -u "$LAB_TURN_USER" -w "$LAB_TURN_PASSWORD" -n 10 -m 2 \
			${modes[$i]} "$LAB_OWN_IP" >"$work/relay-$i.log" 2>&1 &
		pids+=($!)
	done
	for i in "${!modes[@]}"; do
		wait "${pids[$i]}"
		out=$(tail -n 6 "$work/relay-$i.log")
		case $out in *'Total lost packets 0 '*) code=0 ;; *) code=1 ;; esac
		report "own: turnutils_uclient ${modes[$i]}" $code "$out"
	done
	out=$(timeout 60 "$lab" exec ue turnutils_uclient -u lab -W "$LAB_TURN_REST_SECRET" -n 10 -m 2 $v4 "$LAB_OWN_IP" 2>&1)
	case $out in *'Total lost packets 0 '*) code=0 ;; *) code=1 ;; esac
	report "own: turnutils_uclient, shared secret" $code "$out"
	out=$("$lab" prove turn "$LAB_OWN_IP" 2>&1)
	report "own: lab prove turn" $? "$out"
}

# own_signals: a turn-server that reads its users again, and one that is emptied.
own_signals() {
	local out pid long try=(timeout 30 "$lab" exec ue turnutils_uclient -c -e "$LAB_PEER_IP" -r 3480 -n 5)
	printf 'ue:first\n' >"$work/users"
	ip netns exec "$LAB_NS-srv" "$BIN/turn-server" --udp "$LAB_OWN2_IP:3478" --relay "$LAB_OWN2_IP" \
		--realm "$LAB_TURN_REALM" --users "$work/users" --peers any --rfc5766-channels --workers 2 --drain 15 \
		--spread address >"$work/signals.log" 2>&1 &
	pid=$!
	sleep 1
	out=$(timeout 30 "$lab" exec ue turnutils_uclient -e "$LAB_PEER_IP" -r 3480 -n 5 -m 3 -u ue -w first "$LAB_OWN2_IP" 2>&1)
	case $out in *'Total lost packets 0 '*) code=0 ;; *) code=1 ;; esac
	report "own turn-server: reserved ports (RTCP)" $code "$out"
	printf 'no password here\n' >"$work/users"
	kill -HUP $pid && sleep 0.5
	out=$("${try[@]}" -u ue -w first "$LAB_OWN2_IP" 2>&1)
	case $(<"$work/signals.log")/$out in *'not read again'*'Total lost packets 0 '*) code=0 ;; *) code=1 ;; esac
	report "own turn-server: a bad users file changes nothing" $code "$out"
	printf '# changed\nue:second\n' >"$work/users"
	kill -HUP $pid && sleep 0.5
	out=$("${try[@]}" -u ue -w second "$LAB_OWN2_IP" 2>&1)
	case $out in *'Total lost packets 0 '*) code=0 ;; *) code=1 ;; esac
	report "own turn-server: SIGHUP reads users again" $code "$out"
	out=$("${try[@]}" -u ue -w first "$LAB_OWN2_IP" 2>&1)
	report "own turn-server: the old password is refused" $(($? == 0)) "$out"
	"${try[@]}" -u ue -w second -n 200 "$LAB_OWN2_IP" >"$work/long.log" 2>&1 &
	long=$!
	sleep 2
	kill -TERM $pid && sleep 0.5
	out=$("${try[@]}" -u ue -w second "$LAB_OWN2_IP" 2>&1)
	case $out in *'508'*) code=0 ;; *) code=1 ;; esac
	report "own turn-server: no new allocations while it is emptied" $code "$out"
	wait $long
	out=$(<"$work/long.log")
	case $out in *'Total lost packets 0 '*) code=0 ;; *) code=1 ;; esac
	report "own turn-server: those it has go on" $code "$out"
	wait $pid
	out="exit code $?: $(tail -n 1 "$work/signals.log")"
	case $out in 'exit code 0'*'stopped'*'allocations'*=*0*) code=0 ;; *) code=1 ;; esac
	report "own turn-server: then it ends" $code "$out"
}

# Our servers, other people's clients.
if case " $ONLY " in *" own "*) true ;; *) false ;; esac && ONLY="$ONLY open" && up open; then
	"$lab" exec srv "$BIN/turn-server" --udp "$LAB_OWN_IP:3478" --udp "$LAB_OWN_IP:443" --udp "$LAB_OWN_IP:80" \
		--tcp "$LAB_OWN_IP:80" --tcp "$LAB_OWN_IP:3478" --tls "$LAB_OWN_IP:443" \
		--cert "$LAB_CERT" --key "$LAB_KEY" --relay "$LAB_OWN_IP" --relay "$LAB_TURN_IP6" --relay-tcp \
		--realm "$LAB_TURN_REALM" --user "$LAB_TURN_USER:$LAB_TURN_PASSWORD" --secret "$LAB_TURN_REST_SECRET" \
		--peers any --rfc5766-channels --max-per-user 200 --workers 2 --json >"$work/turn-server.log" 2>&1 &
	server=$!
	"$lab" exec prx "$BIN/http-proxy" --listen "$LAB_OWN_PROXY_IP:3128" --allow 0.0.0.0/0 \
		--user "$LAB_PROXY_USER:$LAB_PROXY_PASSWORD" --json >"$work/http-proxy.log" 2>&1 &
	proxy=$!
	sleep 1
	own_relays
	own_signals
	name=own.lab.test
	turn_streams "own turn-server, two relayed TCP streams" turns:$name:443 $user
	turn_passive "own turn-server, a peer connects" turns:$name:443 $user
	turn "own turn-server, shared secret" '"type":"done","echoed":10,.*"closed":true' turn:$name \
		--rest-secret "$LAB_TURN_REST_SECRET" --peer "$LAB_PEER_IP:3480"
	pair "own turn-server, UDP" relay "--turn turn:$name $user --policy relay" ""
	pair "own turn-server, TLS by own http-proxy" relay \
		"--turn turns:$name:443 $user --proxy http://$LAB_PROXY_USER:$LAB_PROXY_PASSWORD@$LAB_OWN_PROXY_IP:3128 --policy relay" ""
	for scheme in basic digest; do
		out=$("$lab" exec ue curl -sS -o /dev/null -w '%{http_connect}' --max-time 10 --insecure \
			--proxy "http://$LAB_OWN_PROXY_IP:3128" --proxy-user "$LAB_PROXY_USER:$LAB_PROXY_PASSWORD" \
			"--proxy-$scheme" "https://$LAB_PCSCF_IP:443/" 2>&1)
		case $out in *200*) code=0 ;; *) code=1 ;; esac
		report "own: curl through http-proxy, $scheme" $code "$out"
	done
	out=$("$lab" exec ue curl -sS -o /dev/null -w '%{http_connect}' --max-time 10 \
		--proxy "http://$LAB_OWN_PROXY_IP:3128" --proxy-user "$LAB_PROXY_USER:wrong" --proxy-digest \
		"https://$LAB_PCSCF_IP:443/" 2>&1)
	case $out in *407*) code=0 ;; *) code=1 ;; esac
	report "own: http-proxy refuses a wrong password" $code "$out"
	# At once, not when its last allocation has ended: its ports are needed.
	kill -INT "$server" 2>/dev/null
	kill "$proxy" 2>/dev/null
	wait "$server"
	own_forwards
	own_registers
	own_ues
fi

printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
