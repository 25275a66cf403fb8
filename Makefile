# The commands of the house. `make up` and `make test` are all that a newcomer needs; each installs what it
# lacks, so neither relies on anything that somebody did to the machine by hand.

.PHONY: help up test drill bench verify fix

help:
	@echo "make up      build, and run the example site on this computer until Ctrl-C"
	@echo "make test    run all checks and tests"
	@echo "make drill   run what takes longer: fault drills under load, and fuzzing"
	@echo "make bench   measure Dolmen beside HAProxy and nginx, and write the table in docs"
	@echo "make verify  check format and lints; writes nothing"
	@echo "make fix     mend format and lints; writes"

up:
	scripts/install.sh up
	cargo build --release --locked --bins
	target/release/dolmen up --file examples/guestbook/dolmen.toml

test:
	scripts/install.sh test
	scripts/test.sh

drill:
	scripts/install.sh test
	cargo build --workspace --bins --locked
	cargo build --release --workspace --bins --locked
	DOLMEN_DRILL_GIB=10 cargo nextest run --locked -p relay --test leaks --success-output final
	DOLMEN_DRILL_ROUNDS=5 cargo nextest run --locked -p dolmen --test faults --test reload --test upgrade --success-output final
	DOLMEN_DRILL_ROUNDS=1 cargo nextest run --locked -p dolmen --test machines --success-output final
	DOLMEN_DRILL_ROUNDS=1 cargo nextest run --locked -p dolmen --test drill --success-output final
	DOLMEN_LOAD_SECONDS=1200 cargo nextest run --locked -p dolmen --test clients --success-output final
	cargo nextest run --release --locked -p dolmen --test idle --success-output final
	DOLMEN_SCHEDULES=100000 cargo nextest run --release --locked -p database --test simulation --success-output final
	fuzz/run.sh

bench:
	bench/run all

verify:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

fix:
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all
