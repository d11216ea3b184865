# Shared by the scripts, which source it from the root of the repository: what a Debian machine needs, the build, and
# reading what the program prints.

# What building everything and running the tests takes.
build_packages=(
    cmake g++ ninja-build ccache
    libxtensor-dev libopenblas-dev nlohmann-json3-dev libpcre2-dev libutf8proc-dev zlib1g-dev libzstd-dev libcli11-dev
    catch2 libxtensor-blas-dev libbenchmark-dev python3
)

# install_missing PACKAGE...: installs with apt-get those that are not there; does nothing, and needs no rights, if all
# are.
install_missing() {
    if ! command -v dpkg-query > /dev/null || ! command -v apt-get > /dev/null; then
        echo "This is no Debian system: taking it that these, or what they are called here, are installed: $*" >&2
        return
    fi
    local package missing=()
    for package in "$@"; do
        if [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2> /dev/null)" != installed ]; then
            missing+=("$package")
        fi
    done
    [ ${#missing[@]} -gt 0 ] || return 0

    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo > /dev/null; then
            echo "Missing packages, and no right to install them. As root: apt-get install ${missing[*]}" >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    echo "Installing ${missing[*]}" >&2
    "${as_root[@]}" apt-get update -q < /dev/null >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends "${missing[@]}" < /dev/null >&2
}

# find_nvcc: prints where the compiler of the CUDA toolkit is; fails where there is none.
find_nvcc() {
    command -v nvcc || ls "${CUDA_PATH:-/usr/local/cuda}/bin/nvcc" 2> /dev/null
}

# configure PRESET [OPTION...]: through ccache where there is one, which asks for some leniency with precompiled headers.
configure() {
    if command -v ccache > /dev/null; then
        export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_CUDA_COMPILER_LAUNCHER=ccache
        export CCACHE_SLOPPINESS=pch_defines,time_macros
    fi
    cmake --preset "$@"
}

# build PRESET [TARGET]: configures and builds.
build() {
    configure "$1"
    cmake --build --preset "$1" ${2:+--target "$2"}
}

# json_number KEY: the number under KEY in the JSON object on standard input.
json_number() { sed -nE "s/.*\"$1\": *(-?[0-9.eE+-]+).*/\1/p" | awk 'NR == 1'; }
