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
	local end=$((SECONDS + $1))
	until [ "$(grep -c -- "$3" "$2" 2>/dev/null)" -ge "${4:-1}" ]; do
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
	out=$(probe alice --call noice 2>&1 | grep -v Traceback)
	# There is no media gateway behind this one, and the probe ends with that.
	case $out in *"call answered"*) code=0 ;; *) code=1 ;; esac
	report "own pcscf: a call goes out through the registrar" $code "$out"
	pcscf_down
	out=$(tail -n 1 "$work/pcscf.log")
	case $out in *'"stopped"'*) code=0 ;; *) code=1 ;; esac
	report "own pcscf: ends by SIGTERM" $code "$out"
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
