# objdump -d -C --no-show-raw-insn OBJECT... | awk -f check_regions.awk
#
# Fails where an instruction stands in a function that may run on processors without it. Instructions of AVX and later
# begin with v and belong to the namespaces of their kernels only; AVX-512 is known by its registers.

/^[0-9a-f]+ <.*>:$/ {
    function_name = $0
    sub(/^[0-9a-f]+ </, "", function_name)
    sub(/>:$/, "", function_name)
    # Where the function itself is, not its arguments and their types.
    where = function_name
    while (gsub(/<[^<>]*>|\([^()]*\)/, "", where)) {}
    avx512 = where ~ /gptq::kernels::avx512(_vnni)?::/
    avx = avx512 || where ~ /gptq::kernels::avx(2|_vnni)::/
    ++functions[avx512 ? "AVX-512" : avx ? "AVX" : "baseline"]
    next
}
{
    split($0, field, "\t")
    instruction = field[2]
    if (instruction !~ /^v[a-z]/ || instruction ~ /^ver[rw]/) next
    wide = instruction ~ /%zmm|%k[0-7]|%[xy]mm(1[6-9]|2[0-9]|3[01])/
    if (wide) ++wide_instructions
    if (avx512 || (avx && !wide)) next
    print function_name " has " instruction
    ++misplaced
}
END {
    for (kind in functions) print functions[kind] " functions: " kind
    if (!functions["AVX-512"] || !functions["AVX"] || !functions["baseline"] || !wide_instructions) {
        print "the kernels are not there: nothing was checked"
        exit 1
    }
    if (misplaced) {
        print misplaced " misplaced instructions"
        exit 1
    }
}
