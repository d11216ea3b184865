# slowest BUILD-FOLDER: the ten files that took longest to compile or link in its last build, and the ten slowest tests
# of its last run, in seconds. `awk` reads all that `sort` writes: `head` would end early, and `sort` with it, by SIGPIPE.
slowest() {
    echo "--- $1: slowest to build"
    awk -F '\t' 'NF >= 5 { took[$4] = ($2 - $1) / 1000 } END { for (f in took) printf "%8.1f s  %s\n", took[f], f }' \
        "$1/.ninja_log" | sort -rn | awk 'NR <= 10'
    [ -e "$1/Testing/Temporary/CTestCostData.txt" ] || return 0
    echo "--- $1: slowest tests"
    awk '/^---/ { exit } NF == 3 { printf "%8.1f s  %s\n", $3, $1 }' "$1/Testing/Temporary/CTestCostData.txt" |
        sort -rn | awk 'NR <= 10'
}
