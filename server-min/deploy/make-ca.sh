#!/usr/bin/env bash
# A small authority of one's own, for devices' certificates (tls.client_ca) and, where no public one
# signs the server's, for that too.
#
#   make-ca.sh FOLDER                  an authority: FOLDER/ca.pem, FOLDER/ca.key
#   make-ca.sh FOLDER server HOST...   FOLDER/server.pem and .key, for these names or addresses
#   make-ca.sh FOLDER device SN...     FOLDER/SN.pem and .key for each, with the serial number as CN
#
# DAYS=825 sets how long a certificate holds (a device's: 3650 days, a server's: 397). Keep ca.key where
# nobody else reads it: whoever has it can be any device. What exists is not written over.
set -euo pipefail

usage() {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

fail() {
    printf 'make-ca.sh: %s\n' "$1" >&2
    exit 1
}

[[ $# -ge 1 ]] || usage
command -v openssl >/dev/null || fail 'openssl is missing: install the package openssl'
folder=$1 kind=${2:-authority}
shift $(($# < 2 ? $# : 2))
# Keys are for their owner alone.
umask 077
mkdir -p "$folder"
cd "$folder"

# key FILE: a new P-256 key.
key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

# sign NAME SUBJECT DAYS EXTENSIONS: NAME.pem and NAME.key, by the authority.
sign() {
    local name=$1 subject=$2 days=$3 extensions=$4
    [[ -e ca.key && -e ca.pem ]] || fail "there is no authority in $folder; make it first: make-ca.sh $folder"
    [[ ! -e $name.key && ! -e $name.pem ]] || fail "$folder/${name#./}.pem or .key exists already"
    key "$name.key"
    openssl req -new -key "$name.key" -subj "/CN=$subject" |
        openssl x509 -req -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -days "$days" \
            -extfile <(printf 'basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n%s\n' "$extensions") \
            -out "$name.pem"
    chmod 644 "$name.pem"
}

case $kind in
authority)
    [[ ! -e ca.key && ! -e ca.pem ]] || fail "$folder has an authority already"
    key ca.key
    openssl req -x509 -new -key ca.key -subj '/CN=p2pcam devices' -days "${DAYS:-7300}" -out ca.pem \
        -addext 'basicConstraints=critical,CA:true,pathlen:0' -addext 'keyUsage=critical,keyCertSign,cRLSign'
    chmod 644 ca.pem
    ;;
server)
    [[ $# -ge 1 ]] || usage
    names=''
    for host; do
        [[ $host =~ ^[A-Za-z0-9.:-]+$ ]] || fail "$host is no host name and no address"
        if [[ $host =~ ^[0-9.]+$ || $host == *:* ]]; then names+=,IP:$host; else names+=,DNS:$host; fi
    done
    sign server "$1" "${DAYS:-397}" "extendedKeyUsage=serverAuth"$'\n'"subjectAltName=${names#,}"
    ;;
device)
    [[ $# -ge 1 ]] || usage
    for sn; do
        # As ids are everywhere in p2pcam, and none of the authority's own files.
        [[ $sn =~ ^[A-Za-z0-9_.:-]{1,64}$ && ! $sn =~ ^(ca|server|\.*)$ ]] ||
            fail "$sn cannot be a device: expected 1 to 64 letters, digits, - _ . or :"
        sign "./$sn" "$sn" "${DAYS:-3650}" 'extendedKeyUsage=clientAuth'
    done
    ;;
*) usage ;;
esac
