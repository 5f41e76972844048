#!/usr/bin/env bash
# Makes the clips in testdata/h264, testdata/h265 and testdata/audio from ffmpeg's own test sources. The
# results are committed; run this only to change them (and then look at the README.md beside them too).
#     make-clip.sh [h264|h265|audio]     one kind's only
#
# Needs ffmpeg with libx264, libx265, libopus and a monospaced font (Debian: ffmpeg fonts-dejavu-core).
set -euo pipefail

cd "$(dirname "$0")/.."
only=${1:-all}
font=$(fc-match -f '%{file}' 'DejaVu Sans Mono:bold')
[ -r "$font" ] || { echo "make-clip: DejaVu Sans Mono is missing: apt-get install fonts-dejavu-core" >&2; exit 1; }
mkdir -p testdata/h264 testdata/h265 testdata/audio

# What a camera's encoder does: no B-frames, one slice a picture, an IDR at a fixed distance only.
common=(-an -pix_fmt yuv420p -bf 0 -tune zerolatency -threads 1 -fflags +bitexact -flags +bitexact)
colours=(-color_primaries bt709 -color_trc bt709 -colorspace bt709 -color_range tv)
x264=scenecut=0:force-cfr=1:sliced-threads=0:sync-lookahead=0

# blocks SIZE: red, green, blue and white squares in the corners, for tests that look at pixels.
blocks() {
    local s=$1
    echo "drawbox=x=0:y=0:w=$s:h=$s:color=red:t=fill,drawbox=x=iw-$s:y=0:w=$s:h=$s:color=lime:t=fill,drawbox=x=0:y=ih-$s:w=$s:h=$s:color=blue:t=fill,drawbox=x=iw-$s:y=ih-$s:w=$s:h=$s:color=white:t=fill"
}

# clock FONTSIZE: time and picture number, in the middle of the lower third.
clock() {
    echo "drawtext=fontfile=$font:fontsize=$1:fontcolor=white:box=1:boxcolor=black@0.7:boxborderw=10:x=(w-tw)/2:y=h*0.72:text='%{pts\\:hms}  %{frame_num}'"
}

picture() {
    echo "$(blocks "$1"),$(clock "$2"),scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
}

# make NAME SIZE SECONDS BLOCK FONTSIZE RATE IDR_DISTANCE PROFILE X264 [output options]
make() {
    local name=$1 size=$2 seconds=$3 block=$4 fontsize=$5 rate=$6 distance=$7 profile=$8 params=$9
    shift 9
    [[ $only == all || $only == h264 ]] || return 0
    ffmpeg -y -loglevel error -f lavfi -i "testsrc2=size=$size:rate=30:duration=$seconds" \
        -vf "$(picture "$block" "$fontsize")" -c:v libx264 "${common[@]}" -profile:v "$profile" \
        -b:v "$rate" -maxrate "$rate" -bufsize "$rate" -g "$distance" "${colours[@]}" \
        -x264-params "$x264:$params" "$@" -f h264 "testdata/h264/$name"
    echo "testdata/h264/$name: $(stat -c %s "testdata/h264/$name") bytes"
}

# The demo's clip.
make clip-720p30.h264 1280x720 16 80 56 2000k 60 main "aud=1:repeat-headers=1"

# Small ones for tests, one of each profile.
make baseline-180p30.h264 320x180 2 20 16 200k 30 baseline "aud=1:repeat-headers=1"
make main-180p30.h264 320x180 2 20 16 200k 30 main "aud=1:repeat-headers=1"
make high-180p30.h264 320x180 2 20 16 200k 30 high "aud=1:repeat-headers=1"

# One that leaves to the packetizer all it may: parameter sets at the start only, no AUD, no SEI,
# several slices a picture, 3-byte start codes throughout.
make bare-180p30.h264 320x180 2 20 16 200k 30 baseline "aud=0:repeat-headers=1:slices=3"
[[ $only != all && $only != h264 ]] || perl -0777 -i -pe '
    my $seen = 0;
    my @units = grep { length } split /\x00*\x00\x00\x01/, $_;
    $_ = join "", map { "\x00\x00\x01$_" } grep {
        my $type = ord($_) & 31;
        $seen = 1 if $type == 5;
        !($type == 6 || $type == 9 || ($seen && ($type == 7 || $type == 8)));
    } @units;
' testdata/h264/bare-180p30.h264

# make265 NAME DISTANCE X265 [output options]: H.265 Main, 320x180, two seconds.
make265() {
    local name=$1 distance=$2 params=$3
    shift 3
    [[ $only == all || $only == h265 ]] || return 0
    ffmpeg -y -loglevel error -f lavfi -i "testsrc2=size=320x180:rate=30:duration=2" \
        -vf "$(picture 20 16)" -c:v libx265 "${common[@]}" -profile:v main -preset medium "${colours[@]}" \
        -x265-params "log-level=error:frame-threads=1:info=0:scenecut=0:rc-lookahead=0:bframes=0:keyint=$distance:min-keyint=$distance:bitrate=150:vbv-maxrate=150:vbv-bufsize=150:$params" \
        "$@" -f hevc "testdata/h265/$name"
    echo "testdata/h265/$name: $(stat -c %s "testdata/h265/$name") bytes"
}

# IDR pictures as cameras make them; and clean random access pictures (CRA) after the first one, with
# parameter sets at the start only and three slices a picture (which x265 makes with threads only).
make265 main-180p30.h265 30 "pools=none:wpp=0:aud=1:repeat-headers=1:open-gop=0"
make265 cra-180p30.h265 30 "pools=2:ctu=32:slices=3:aud=0:repeat-headers=1:open-gop=1"
[[ $only != all && $only != h265 ]] || perl -0777 -i -pe '
    my $seen = 0;
    my @units = grep { length } split /\x00*\x00\x00\x01/, $_;
    $_ = join "", map { "\x00\x00\x01$_" } grep {
        my $type = ord($_) >> 1 & 63;
        $seen = 1 if $type < 32;
        !($seen && $type >= 32 && $type <= 34);
    } @units;
' testdata/h265/cra-180p30.h265

# make_audio NAME RATE [output options]: five seconds of a soft tone that glides up and down, and ends as it
# begins, so that it can be played in a loop.
make_audio() {
    local name=$1 rate=$2
    shift 2
    ffmpeg -y -loglevel error -fflags +bitexact \
        -f lavfi -i "aevalsrc='0.15*(0.6+0.4*sin(2*PI*t))*sin(2*PI*262*t+400*sin(2*PI*0.2*t))':s=$rate:d=5" \
        -ac 1 -flags +bitexact "$@" "testdata/audio/$name"
}

if [[ $only == all || $only == audio ]]; then
    make_audio glide.pcma 8000 -f alaw
    make_audio glide.pcmu 8000 -f mulaw
    # Packets of 20 ms, each behind its length in two bytes: taken out of the Ogg pages that ffmpeg
    # writes, without the two packets at the beginning that are no sound (RFC 7845).
    make_audio glide.ogg 48000 -c:a libopus -b:a 24k -vbr on -application audio -frame_duration 20 -f ogg
    perl -0777 -ne '
        my ($at, $packet, @packets) = (0, "");
        while (substr($_, $at, 4) eq "OggS") {
            my $count = ord substr $_, $at + 26, 1;
            my @lengths = unpack "C*", substr $_, $at + 27, $count;
            $at += 27 + $count;
            for my $length (@lengths) {
                $packet .= substr $_, $at, $length;
                $at += $length;
                next if $length == 255;
                push @packets, $packet;
                $packet = "";
            }
        }
        print map { pack "n/a*", $_ } @packets[2 .. $#packets];
    ' testdata/audio/glide.ogg >testdata/audio/glide.opus-packets
    rm testdata/audio/glide.ogg
    for name in glide.pcma glide.pcmu glide.opus-packets; do
        echo "testdata/audio/$name: $(stat -c %s "testdata/audio/$name") bytes"
    done
fi
