# shellcheck shell=bash disable=SC2154,SC2086
# SIP in the laboratory: other people's clients at our P-CSCF, our UE at other people's, and ours at
# ours. Sourced by ../lab.sh.

sip_here=ims-traversal/tests/lab

# pcscf_up ARGS...: our P-CSCF on own2.lab.test. Its pid is in $pcscf, what it says in $work/pcscf.log.
pcscf_up() {
	"$lab" exec srv "$BIN/pcscf" --listen-tls "$LAB_OWN2_IP:443" --listen-tcp "$LAB_OWN2_IP:80" \
		--cert "$LAB_CERT" --key "$LAB_KEY" --core "$LAB_OWN2_IP:5060" --alias own2.lab.test \
		--drain 1 --json "$@" >"$work/pcscf.log" 2>&1 &
	pcscf=$!
	wait_for 5 "$work/pcscf.log" '"kind":"tcp"'
}

pcscf_down() {
	kill "$pcscf" 2>/dev/null
	wait "$pcscf" 2>/dev/null
}

# wait_for SECONDS FILE PATTERN [COUNT]: until that many lines of the file match.
wait_for() {
	local count end=$((SECONDS + $1))
	until count=$(grep -c -- "$3" "$2" 2>/dev/null) && [ "$count" -ge "${4:-1}" ]; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}

# probe USER ARGS...: the laboratory's own client at our P-CSCF, over TLS.
probe() {
	local user=$1
	shift
	timeout 40 "$lab" exec ue python3 "$LAB/tools/sip_ue.py" --ca "$LAB_CA" --server "$LAB_OWN2_IP:443" --tls \
		--name own2.lab.test --domain "$LAB_SIP_DOMAIN" --user "$user" --password "$user-secret" "$@"
}

# own_forwards: our P-CSCF in front of the laboratory's registrars.
own_forwards() {
	local line
	pcscf_up --registrar "$LAB_SIP_DOMAIN=$LAB_REGISTRAR_IP:5060" \
		--registrar "$LAB_SIP_DOMAIN256=$LAB_REGISTRAR256_IP:5060"
	while read -r line; do
		case $line in
			ok*) report "own pcscf: ${line#ok    }" 0 ;;
			FAIL*) report "own pcscf: ${line#FAIL  }" 1 "$line" ;;
		esac
	done < <("$lab" prove pcscf "$LAB_OWN2_IP" 2>&1)
	own_calls
	out=$(probe alice --call noice 2>&1 | grep -v Traceback)
	# There is no media gateway behind this one, and the probe ends with that.
	case $out in *"call answered"*) code=0 ;; *) code=1 ;; esac
	report "own pcscf: a call goes out through the registrar" $code "$out"
	pcscf_down
	out=$(tail -n 1 "$work/pcscf.log")
	case $out in *'"stopped"'*) code=0 ;; *) code=1 ;; esac
	report "own pcscf: ends by SIGTERM" $code "$out"
}

# own_calls: other people's phones, and ours with each of them, call one another through our P-CSCF.
# No firewall is between them.
own_calls() {
	local line
	while read -r line; do
		case $line in
			ok*) report "own pcscf: ${line#ok    }" 0 ;;
			FAIL*) report "own pcscf: ${line#FAIL  }" 1 "$line" ;;
		esac
	done < <("$lab" prove calls "$LAB_OWN2_IP" --ue "$BIN/ue" 2>&1)
}

# own_registers: our P-CSCF with its own registrar.
own_registers() {
	local callee
	printf '%s\n' alice:alice-secret bob:bob-secret >"$work/users"
	# sipp reads only the first challenge, and knows MD5.
	pcscf_up --domain "$LAB_SIP_DOMAIN" --users "$work/users" --flow-timer 3 --flow-grace 4 --http answer --digest md5
	out=$(probe alice --hold 12 2>&1)
	report "own registrar: registers, pings, unregisters" $? "$out"
	out=$(probe mallory 2>&1)
	case $out in *"REGISTER: SIP/2.0 401"*) code=0 ;; *) code=1 ;; esac
	report "own registrar: refuses strangers" $code "$out"
	probe bob --answer 20 >"$work/callee.log" 2>&1 &
	callee=$!
	wait_for 5 "$work/pcscf.log" '"registered".*bob'
	printf 'SEQUENTIAL\nalice;%s;[authentication username=alice password=alice-secret];bob;\n' "$LAB_SIP_DOMAIN" \
		>"$work/fields.csv"
	out=$(timeout 20 "$lab" exec ue sipp -sf "$sip_here/register-call.xml" -inf "$work/fields.csv" -t t1 -m 1 -nostdin -auth_uri "$LAB_SIP_DOMAIN" \
		-i "$LAB_UE_IP" "$LAB_OWN2_IP:80" 2>&1)
	report "own registrar: sipp registers over TCP and calls" $? "$out"
	wait $callee
	report "own registrar: the call arrives down the flow" $? "$(cat "$work/callee.log")"
	# A client that is silent for longer than flow timer and grace.
	probe alice --answer 10 >"$work/silent.log" 2>&1
	wait_for 1 "$work/pcscf.log" '"silent or unregistered for too long"'
	report "own registrar: a silent flow is closed" $? "$(cat "$work/silent.log")"
	own_other_protocols
	own_reloads
	pcscf_down
}

own_other_protocols() {
	out=$("$lab" exec ue curl -s -o /dev/null -m 10 --cacert "$LAB_CA" -w '%{http_code}' --resolve "own2.lab.test:443:$LAB_OWN2_IP" \
		https://own2.lab.test/ 2>&1)
	[ "$out" = 404 ]
	report "own pcscf: HTTPS on the same port" $? "$out"
	out=$("$lab" exec ue timeout 8 openssl s_client -connect "$LAB_OWN2_IP:443" -alpn sip/2 -CAfile "$LAB_CA" \
		-verify_return_error </dev/null 2>&1)
	printf '%s' "$out" | grep -q 'ALPN protocol: sip/2'
	report "own pcscf: ALPN sip/2" $? "$out"
	out=$("$lab" exec ue timeout 8 openssl s_client -connect "$LAB_OWN2_IP:443" -tls1_1 -cipher ALL:@SECLEVEL=0 </dev/null 2>&1)
	printf '%s' "$out" | grep -q 'Protocol *: TLSv1.1$' && printf '%s' "$out" | grep -q 'Cipher is ECDHE'
	report "own pcscf: no TLS 1.1" $((1 - $?)) "$out"
	out=$({ printf 'SSH-2.0-x\r\n'; sleep 1; } | "$lab" exec ue timeout 5 nc "$LAB_OWN2_IP" 80 | wc -c)
	[ "$out" = 0 ]
	report "own pcscf: other protocols are closed without a word" $? "$out"
}

own_reloads() {
	echo carol:carol-secret >>"$work/users"
	kill -HUP "$pcscf"
	wait_for 5 "$work/pcscf.log" '"reloaded"'
	out=$(probe carol 2>&1)
	report "own registrar: SIGHUP reads users again" $? "$out"
	echo broken >>"$work/users"
	kill -HUP "$pcscf"
	wait_for 5 "$work/pcscf.log" '"not-reloaded"'
	out=$(probe carol 2>&1)
	report "own registrar: a broken file changes nothing" $? "$out"
}

# own_behind ARGS...: the laboratory's client reaches our P-CSCF from behind this variant's firewall.
own_behind() {
	case " ${LAB_ONLY:-own} " in *" own "*) ;; *) return ;; esac
	pcscf_up --registrar "$LAB_SIP_DOMAIN=$LAB_REGISTRAR_IP:5060" --flow-timer 5
	out=$(probe alice "$@" 2>&1)
	report "own pcscf, $LAB_VARIANT: register $*" $? "$out"
	pcscf_down
}

# The UE: at the laboratory's P-CSCF unless $at says otherwise; $password instead of the right one.
ue_words() { # ue_words USER [DOMAIN]
	printf -- '--pcscf %s --aor sip:%s@%s --username %s --password %s --ca %s --json' \
		"${at:-sips:pcscf.lab.test:443}" "$1" "${2:-$LAB_SIP_DOMAIN}" "$1" "${password:-$1-secret}" "$LAB_CA"
}

ue_more=
ue_turn="--turn turns:turn.lab.test:443 --turn-user ue --turn-password ue-secret"

# ue NAME COMMAND USER DOMAIN ARGS...: a UE that must succeed.
ue() {
	local name="$LAB_VARIANT: ue, $1" command=$2 words
	words=$(ue_words "$3" "$4")
	shift 4
	out=$(timeout 100 "$lab" exec ue "$BIN/ue" $command $words "$@" 2>&1)
	report "$name" $? "$out"
}

# ue_fails NAME PATTERN USER DOMAIN ARGS...: a UE that must not register, and say why.
ue_fails() {
	local name="$LAB_VARIANT: ue, $1" pattern=$2 words code
	words=$(ue_words "$3" "$4")
	shift 4
	out=$(timeout 100 "$lab" exec ue "$BIN/ue" register $words "$@" 2>&1)
	code=$?
	[ $code -ne 0 ] && printf '%s' "$out" | tail -n 1 | grep -qi -- "$pattern"
	report "$name" $? "exit code $code: $out"
}

# ue_registers HOW ARGS...: at both registrars.
ue_registers() {
	local how=$1
	shift
	ue "register, $how, MD5" register alice "$LAB_SIP_DOMAIN" "$@"
	ue "register, $how, SHA-256" register alice "$LAB_SIP_DOMAIN256" "$@"
}

# ue_listens USER NAMESPACE ARGS...: a UE in the background that takes one call: $listener,
# $work/listener.log. Returns when it has registered.
ue_listens() {
	local words namespace=$2
	words=$(ue_words "$1")
	shift 2
	timeout 100 ip netns exec "$LAB_NS-$namespace" "$BIN/ue" listen $words "$@" >"$work/listener.log" 2>&1 &
	listener=$!
	wait_for 30 "$work/listener.log" '"type":"registered"'
}

# ue_is_called HOW ARGS...: by the party without ICE, down its flow. That one hangs up after some time.
ue_is_called() {
	local code how=$1
	shift
	ue_listens alice ue "$@"
	printf 'SEQUENTIAL\n%s;\n' "$LAB_SIP_DOMAIN" >"$work/domain.csv"
	out=$(timeout 60 "$lab" exec peer sipp -sf "$LAB/sipp/call.xml" -inf "$work/domain.csv" -m 1 -nostdin -rtp_echo \
		-i "$LAB_PEER_IP" -mi "$LAB_PEER_IP" -p 5070 -s alice "$LAB_REGISTRAR_IP:5060" 2>&1)
	code=$?
	wait "$listener" || code=1
	report "$LAB_VARIANT: ue, called by sipp, $how" $code "$(cat "$work/listener.log")"
}

# ue_pair NAME NAMESPACE "ARGS OF BOB" ARGS OF ALICE...: alice in ue calls bob.
ue_pair() {
	local name="$LAB_VARIANT: ue, $1" words code
	ue_listens bob "$2" $3
	words=$(ue_words alice)
	shift 3
	out=$(timeout 100 "$lab" exec ue "$BIN/ue" call "sip:bob@$LAB_SIP_DOMAIN" $words "$@" 2>&1)
	code=$?
	wait "$listener" || code=1
	report "$name" $code "$out
$(tail -n 4 "$work/listener.log")"
}

# ue_recovers NAME COMMAND...: a UE whose way or server is gone for a while registers again. It waits
# for a pong for 10 s at most after at most 20 s (Flow-Timer), and then at most 60 s (RFC 5626
# section 4.5).
ue_recovers() {
	local name="$LAB_VARIANT: ue, registers again after $1" words agent code
	shift
	words=$(ue_words alice)
	timeout 200 "$lab" exec ue "$BIN/ue" register $words $ue_more --duration 180 >"$work/recovery.log" 2>&1 &
	agent=$!
	wait_for 20 "$work/recovery.log" '"type":"registered"'
	# A flow that has not been proven by a pong does not count as one that has worked.
	sleep 3
	"$@" >/dev/null 2>&1
	wait_for 110 "$work/recovery.log" '"type":"registered"' 2
	code=$?
	kill -INT "$agent" 2>/dev/null
	wait "$agent" 2>/dev/null
	report "$name" $code "$(cat "$work/recovery.log")"
}

cut_for() { # cut_for COMMAND SECONDS
	"$lab" "$1"
	sleep "$2"
	"$lab" heal
}

sip_open() {
	ue_registers "nothing in between"
	local password=wrong
	ue_fails "wrong password" "password" alice "$LAB_SIP_DOMAIN"
	password=
	ue "call, by the media gateway" "call sip:noice@$LAB_SIP_DOMAIN" alice "$LAB_SIP_DOMAIN"
	ue_pair "calls a UE" far ""
}

sip_fw443() {
	ue_registers "TLS 443"
	ue "call over TURN, by the media gateway" "call sip:noice@$LAB_SIP_DOMAIN" alice "$LAB_SIP_DOMAIN" $ue_turn
	ue_is_called "media over TURN" $ue_turn
	ue_pair "calls a UE over TURN" far "$ue_turn --relay-only" $ue_turn
	ue_recovers "a cut" cut_for cut 40
	ue_recovers "a reset" cut_for cut-rst 25
	ue_recovers "a restart of the P-CSCF" "$lab" restart pcscf
	# Nothing tells of it: the next refresh does, at half of the time granted.
	local ue_more="--expires 60"
	ue_recovers "a restart of the registrar" "$lab" restart registrar
	ue_more=
}

sip_proxy() {
	local auth=$LAB_PROXY_USER:$LAB_PROXY_PASSWORD port=$LAB_PROXY_PORT squid
	ue_registers "squid" --proxy "http://$auth@$LAB_PROXY_IP:$port" --proxy-weak-auth
	ue_registers "squid, no credentials" --proxy "http://$LAB_PROXY_OPEN_IP:$port"
	ue_registers "squid, Digest only" --proxy "http://$auth@$LAB_PROXY_DIGEST_IP:$port" --proxy-weak-auth
	ue_registers "squid, Basic only" --proxy "http://$auth@$LAB_PROXY_BASIC_IP:$port" --proxy-weak-auth
	ue_registers "tinyproxy" --proxy "http://$auth@$LAB_TINYPROXY_IP:$port" --proxy-weak-auth
	ue_fails "proxy wants Basic in the clear" "prox" alice "$LAB_SIP_DOMAIN" --rung connect --timeout 10 \
		--proxy "http://$auth@$LAB_PROXY_BASIC_IP:$port"
	squid="--proxy http://$auth@$LAB_PROXY_IP:$port --proxy-weak-auth"
	ue "call over TURN through squid, by the media gateway" "call sip:noice@$LAB_SIP_DOMAIN" alice "$LAB_SIP_DOMAIN" \
		$ue_turn $squid
	ue_is_called "media over TURN through squid" $ue_turn $squid
	ue_pair "calls a UE over TURN through squid" far "" $ue_turn $squid
}

sip_idle() {
	ue "a flow that would be forgotten is kept alive" register alice "$LAB_SIP_DOMAIN" --duration 40
}

own_restart() {
	pcscf_down
	pcscf_up --domain "$LAB_SIP_DOMAIN" --users "$work/users"
}

# own_ues: our UEs at our P-CSCF, before its own registrar and before the laboratory's.
own_ues() {
	local at="sips:own2.lab.test:443"
	printf '%s\n' alice:alice-secret bob:bob-secret >"$work/users"
	pcscf_up --domain "$LAB_SIP_DOMAIN" --users "$work/users" --listen-tls "$LAB_OWN_IP:443" --alias own.lab.test
	ue "register at our own P-CSCF" register alice "$LAB_SIP_DOMAIN" --pcscf sips:own.lab.test:443
	[ "$(printf '%s' "$out" | grep -c '"type":"registered","at":[0-9.]*,"reg_id":[12],')" = 2 ]
	report "$LAB_VARIANT: ue, two flows at our own P-CSCF" $? "$out"
	ue_pair "calls a UE at our own P-CSCF" far ""
	ue_recovers "a restart of our own P-CSCF" own_restart
	pcscf_down
	pcscf_up --registrar "$LAB_SIP_DOMAIN=$LAB_REGISTRAR_IP:5060"
	ue "call without a media gateway" "call sip:noice@$LAB_SIP_DOMAIN" alice "$LAB_SIP_DOMAIN"
	pcscf_down
}
