# Shortcuts; each is one cargo command.

# Everything that the tests need, then all tests
test:
    ./tests/run

# Images beside peers: docker with BuildKit, buildah, umoci, and the floor. See docs/reference/performance.md
# `just bench agents`: check and plan of 10,000 agents
bench what="images":
    cargo build --release -p fleetctl
    cargo run --release -p fleet-benches -- {{what}}
