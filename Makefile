# make demo    a camera, a server and a link to watch (DEMO_SECONDS=40 ends by itself)
# make test    all tests; installs what they need where it may
# make bench   measures; writes target/report/media.json
# make bench-server   measures the server beside coturn and Mosquitto; writes target/report/server.json
# make audit   looks the dependencies up in the advisory database
# make fuzz    every parser against random input (FUZZ_SECONDS each)
.PHONY: demo test bench bench-server audit fuzz fmt header clip clean

demo:
	@scripts/demo.sh

test:
	@scripts/test.sh

bench:
	@cargo run --locked --release -p hil-tests --bin bench

bench-server:
	@cargo run --locked --release -p hil-tests --bin bench-server

# Known weaknesses of the crates we use; needs the network and cargo-deny
audit:
	@PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo deny check advisories

fuzz:
	@scripts/fuzz.sh

fmt:
	@cargo fmt --all

# include/p2pcam.h from sdk-ffi/src
header:
	@P2PCAM_BLESS=1 cargo test --locked -p sdk-ffi --test header the_committed_header

# testdata/h264, h265 and audio from ffmpeg's test sources
clip:
	@scripts/make-clip.sh

clean:
	@cargo clean
	@rm -rf hil-tests/browser/node_modules
