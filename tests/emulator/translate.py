#!/usr/bin/env python3
"""Turns a preprocessed CUDA source into C++ for the emulator: translate.py IN OUT

Some things of CUDA C++ are not C++ and cannot be had by macros: PTX in asm statements becomes calls of
the emulator, launches kernel<<<...>>>(...) become calls of a template, __shared__ variables become
references to places in the block's shared memory, and kernels whose address is taken as (const void *)
are registered with their parameters. Lines keep their numbers. What is not
known is an error that names it: nothing is passed over.
"""

import re
import sys

# PTX as it stands in the sources, spaces single, and the call that does the same. $x stands for an
# operand or a number, @t for a 16-bit type, .* for what does not matter here.
PTX = [
    # warps
    ("mov.u32 $x, %%tid.x;", "$x = (int)E::place->thread.x"),
    ("mov.u64 $x, %%globaltimer;", "$x = E::global_timer()"),
    ("{ .reg .pred p; elect.sync _|p, 0xffffffff; selp.u32 $x, 1, 0, p; }", "$x = E::elect()"),
    ("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$a, $b, $c, $d}, [$p];",
     "E::ldmatrix(false, $a, $b, $c, $d, $p)"),
    ("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {$a, $b, $c, $d}, [$p];",
     "E::ldmatrix(true, $a, $b, $c, $d, $p)"),
    ("stmatrix.sync.aligned.m8n8.x4.shared.b16 [$p], {$a, $b, $c, $d};",
     "E::stmatrix(false, $p, $a, $b, $c, $d)"),
    ("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [$p], {$a, $b, $c, $d};",
     "E::stmatrix(true, $p, $a, $b, $c, $d)"),
    # tensor cores; wgmma itself has a function below
    ("mma.sync.aligned.m16n8k16.row.col.f32.@t.@t.f32 {$c, $d, $e, $f}, {$k, $l, $m, $n}, {$p, $q}, "
     "{$c, $d, $e, $f};", "E::mma(@t, $c, $d, $e, $f, $k, $l, $m, $n, $p, $q)"),
    ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {$c, $d, $e, $f}, {$k, $l, $m, $n}, "
     "{$p, $q}, {$c, $d, $e, $f};",
     "E::mma(E::Number::tf32, $c, $d, $e, $f, $k, $l, $m, $n, $p, $q)"),
    ("wgmma.fence.sync.aligned;", "E::wgmma_fence()"),
    ("wgmma.commit_group.sync.aligned;", "E::wgmma_commit()"),
    ("wgmma.wait_group.sync.aligned $n;", "E::wgmma_wait($n)"),
    # barriers
    ("bar.sync $b, $n;", "E::barrier_sync($b, $n)"),
    ("bar.arrive $b, $n;", "E::barrier_arrive($b, $n)"),
    ("barrier.cluster.arrive.*aligned;", "E::cluster_arrive()"),
    ("barrier.cluster.wait.*aligned;", "E::cluster_wait()"),
    ("mbarrier.init.shared::cta.b64 [$b], $n;", "E::mbarrier_init($b, $n)"),
    ("mbarrier.arrive.shared::cta.b64 _, [$b];", "E::mbarrier_arrive($b)"),
    ("mbarrier.arrive.expect_tx.shared::cta.b64 _, [$b], $n;", "E::mbarrier_expect($b, $n)"),
    ("mbarrier.arrive.shared::cluster.b64 _, [$b];", "E::mbarrier_arrive_remote($b)"),
    ("{ .reg .pred p; mbarrier.try_wait.parity.*shared::cta.b64 p, [$b], $r; "
     "selp.u32 $x, 1, 0, p; }", "$x = E::mbarrier_wait($b, $r)"),
    # fences: fibers see memory in order; only the copy engine and the tensor cores see it later
    ("fence.proxy.async;", "E::fence_proxy_async()"),
    ("fence.proxy.async.shared::cta;", "E::fence_proxy_async()"),
    ("fence.proxy.async.global;", "E::fence_proxy_async()"),
    ("fence.mbarrier_init.release.cluster;", "((void)0)"),
    # what changes when and how fast, but not what
    ("griddepcontrol.*;", "((void)0)"),
    ("prefetch.*;", "((void)0)"),
    ("setmaxnreg.*;", "((void)0)"),
    # shared memory
    ("mapa.shared::cluster.u32 $x, $p, $r;", "$x = E::remote_address_of($p, $r)"),
    ("st.shared.u32 [$p], $a;", "E::store_one<uint32_t>($p, $a)"),
    ("st.shared.v4.u32 [$p], {$a, $b, $c, $d};", "E::store_quad<uint32_t>($p, $a, $b, $c, $d)"),
    ("st.shared.v4.f32 [$p], {$a, $b, $c, $d};", "E::store_quad<float>($p, $a, $b, $c, $d)"),
    ("ld.shared.v4.u32 {$a, $b, $c, $d}, [$p];", "E::load_quad<uint32_t>($a, $b, $c, $d, $p)"),
    ("ld.shared.v4.f32 {$a, $b, $c, $d}, [$p];", "E::load_quad<float>($a, $b, $c, $d, $p)"),
    ("ld.shared::cluster.v4.f32 {$a, $b, $c, $d}, [$p];", "E::load_quad<float>($a, $b, $c, $d, $p)"),
    # between blocks
    ("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [$p], $x, [$b];",
     "E::send_async($p, $b, 1, $x, 0, 0, 0)"),
    ("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [$p], {$x, $y}, [$b];",
     "E::send_async($p, $b, 2, $x, $y, 0, 0)"),
    ("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [$p], {$x, $y, $z, $w}, "
     "[$b];", "E::send_async($p, $b, 4, $x, $y, $z, $w)"),
    ("ld.acquire.gpu.global.u32 $x, [$p];", "$x = E::load_acquire($p)"),
    ("ld.acquire.gpu.global.s32 $x, [$p];", "$x = (int)E::load_acquire($p)"),
    ("st.release.gpu.global.s32 [$p], $x;", "E::store_release($p, (uint32_t)$x)"),
    ("red.release.gpu.global.add.u32 [$p], $x;", "E::add_release($p, $x)"),
    # copies
    ("cp.async.c.*.shared.global [$p], [$q], $n, $v;", "E::copy_async($p, $q, $n, $v)"),
    ("cp.async.c.*.shared.global [$p], [$q], $n;", "E::copy_async($p, $q, $n, $n)"),
    ("cp.async.commit_group;", "E::copy_commit()"),
    ("cp.async.wait_group $n;", "E::copy_wait($n)"),
    ("cp.async.mbarrier.arrive.noinc.shared.b64 [$b];", "E::copy_arrive($b)"),
    ("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [$p], [$q], $n, [$b];",
     "E::bulk_load($p, $q, $n, $b)"),
    ("cp.async.bulk.global.shared::cta.bulk_group [$p], [$q], $n;",
     "E::bulk_store($p, $q, $n, false)"),
    ("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [$p], [$q], $n;",
     "E::bulk_store($p, $q, $n, true)"),
    ("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
     "[$p], [$q, {$x, $y, $z, $w}], [$b];", "E::tensor_load($p, $q, $x, $y, $z, $w, $b)"),
    ("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
     ".L2::cache_hint [$p], [$q, {$x, $y, $z, $w}], [$b], $c;",
     "E::tensor_load($p, $q, $x, $y, $z, $w, $b)"),
    ("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group.L2::cache_hint "
     "[$q, {$x, $y, $z, $w}], [$p], $c;", "E::tensor_store($q, $x, $y, $z, $w, $p)"),
    ("cp.async.bulk.commit_group;", "E::bulk_commit()"),
    ("cp.async.bulk.wait_group.read $n;", "E::bulk_wait($n)"),
    ("cp.async.bulk.wait_group $n;", "E::bulk_wait($n)"),
    # numbers
    ("mul.rn.@tx2 $r, $x, $y;", "$r = E::multiply_pair(@t, $x, $y)"),
    ("fma.rn.@tx2 $r, $x, $y, $z;", "$r = E::fma_pair(@t, $x, $y, $z)"),
    ("max.NaN.@tx2 $r, $x, $y;", "$r = E::max_pair(@t, $x, $y, true)"),
    ("min.NaN.@tx2 $r, $x, $y;", "$r = E::min_pair(@t, $x, $y, true)"),
    ("max.@tx2 $r, $x, $y;", "$r = E::max_pair(@t, $x, $y, false)"),
    ("min.@tx2 $r, $x, $y;", "$r = E::min_pair(@t, $x, $y, false)"),
    ("max.NaN.f32 $r, $x, $y;", "$r = E::max_nan($x, $y)"),
    ("min.NaN.f32 $r, $x, $y;", "$r = E::min_nan($x, $y)"),
    ("rcp.approx.f32 $r, $x;", "$r = E::reciprocal($x)"),
    ("rcp.approx.ftz.f32 $r, $x;", "$r = E::reciprocal_flushed($x)"),
    ("ex2.approx.ftz.f32 $r, $x;", "$r = E::exp2_flushed($x)"),
    ("tanh.approx.f32 $r, $x;", "$r = E::tanh_approx($x)"),
    ("cvt.rn.satfinite.f16x2.f32 $r, $x, $y;", "$r = E::narrow_saturated($x, $y)"),
    ("cvt.rna.tf32.f32 $r, $x;", "$r = E::round_tf32($x)"),
]

WGMMA = re.compile(
    r"wgmma\.mma_async\.sync\.aligned\.m64n(?P<n>\d+)k(?:16|8)\.f32\.(?P<type>bf16|f16|tf32)\.(?P=type) "
    r"\{(?P<sums>[^}]*)\}, (?P<a>\{[^}]*\}|%\d+), (?P<b>%\d+), (?P<accumulates>p|1), 1, 1"
    r"(?:, (?P<first>[01]))?(?:, (?P<second>[01]))?;")
SETP = re.compile(r"setp\.(eq|ne)\.b32 p, (%\d+|0), 0;")


class Unknown(Exception):
    pass


def compile_pattern(ptx):
    """A regular expression; names that occur again must be the same operand again."""
    seen = set()

    def expression(part):
        if part == ".*": # the rest of an instruction whose operands do not matter either, or a suffix
            return r"\S*(?: \S+)?" if ptx.endswith(".*;") else r"\S*"
        if part != "@t" and not re.fullmatch(r"\$[a-z]", part):
            return re.escape(part)
        name = part[1:]
        if name in seen:
            return "(?P=%s)" % name
        seen.add(name)
        return r"(?P<%s>%s)" % (name, "bf16|f16" if part == "@t" else r"%\d+|\d+")

    parts = re.split(r"(\$[a-z]|@t|\.\*)", ptx.replace("%%", "%"))
    return re.compile("".join(expression(part) for part in parts))


TABLE = [(compile_pattern(ptx), call.replace("E::", "::emulator::")) for ptx, call in PTX]


def skip_literal(text, i):
    """Behind the string or character that starts at i."""
    quote = text[i]
    i += 1
    while text[i] != quote:
        i += 2 if text[i] == "\\" else 1
    return i + 1


def closing(text, i):
    """Behind the bracket that closes the one at i."""
    depth = 0
    while True:
        c = text[i]
        if c in "\"'":
            i = skip_literal(text, i)
            continue
        depth += (c in "([{") - (c in ")]}")
        i += 1
        if depth == 0:
            return i


def split(text, separator):
    """The parts between separators that stand in no bracket and no string."""
    parts, depth, start, i = [], 0, 0, 0
    while i < len(text):
        c = text[i]
        if c in "\"'":
            i = skip_literal(text, i)
            continue
        depth += (c in "([{") - (c in ")]}")
        if c == separator and depth == 0:
            parts.append(text[start:i])
            start = i + 1
        i += 1
    return parts + [text[start:]]


def without_markers(text):
    return re.sub(r"(?m)^#.*$", "", text)


def joined_strings(text):
    """The value of string literals that stand side by side, spaces made single."""
    pieces = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    value = "".join(p.replace("\\n", "\n").replace("\\t", "\t").replace('\\"', '"') for p in pieces)
    return re.sub(r",\s*", ", ", " ".join(value.split()))


def operands_of(parts):
    found = []
    for part in parts[1:3]:
        for operand in split(without_markers(part), ","):
            match = re.match(r'\s*"[^"]*"\s*\(', operand)
            if match:
                end = closing(operand, match.end() - 1)
                found.append("(" + operand[match.end():end - 1].strip() + ")")
    return found


def wgmma_call(match, ptx, value):
    sums = re.findall(r"%\d+", match["sums"])
    if len(sums) != int(match["n"]) // 2:
        raise Unknown(ptx)
    accumulates = "true"
    if match["accumulates"] == "p":
        setp = SETP.search(ptx)
        comparison = "==" if setp[1] == "eq" else "!="
        accumulates = "(%s %s 0)" % (value(setp[2]), comparison)
    flags = [f or "0" for f in (match["first"], match["second"])]
    if match["a"].startswith("{"): # registers are not transposed: the one flag is the other's
        registers = ", ".join(value(r) for r in re.findall(r"%\d+", match["a"]))
        left, flags = "{false, 0, {%s}}" % registers, ["0", flags[0]]
    else:
        left = "{true, %s, {}}" % value(match["a"])
    return ("do { float *const emulator_sums[] = {%s}; ::emulator::wgmma(::emulator::Number::%s, %s, "
            "emulator_sums, %s, %s, %s, %s, %s); } while (0)" % (
                ", ".join("&" + value(s) for s in sums), match["type"], match["n"], left,
                value(match["b"]), accumulates, flags[0], flags[1]))


def asm_call(body):
    parts = split(body, ":")
    ptx = joined_strings(without_markers(parts[0])).replace("%%", "%")
    operands = operands_of(parts)

    def value(token):
        return operands[int(token[1:])] if token.startswith("%") else token

    if ptx == "": # keeps the compiler from moving things: the emulated order is that of the source
        return "(%s)" % ", ".join("(void)" + operand for operand in operands or ["0"])
    match = WGMMA.search(ptx)
    if match:
        return wgmma_call(match, ptx, value)
    for pattern, call in TABLE:
        match = pattern.fullmatch(ptx)
        if match:
            call = call.replace("@t", "::emulator::Number::" + match["t"]) if "@t" in call else call
            return re.sub(r"\$([a-z])", lambda m: value(match[m[1]]), call)
    raise Unknown("PTX that the emulator does not know: " + ptx)


def translate_asm(text):
    out, i = [], 0
    for match in re.finditer(r"\basm\b(\s+volatile)?\s*\(", text):
        if match.start() < i:
            continue
        end = closing(text, match.end() - 1)
        call = asm_call(text[match.end():end - 1])
        # behind it follow the lines that the statement took; a marker among them would end it
        lines = text.count("\n", match.start(), end)
        tail = "\n" * lines if not re.search(r"(?m)^#", text[match.start():end]) else ""
        out += [text[i:match.start()], call.replace("\n", " "), tail]
        i = end
    return "".join(out) + text[i:]


def start_of_kernel(text, end):
    """Where the expression begins that ends at `end`: a name, qualified, with template arguments."""
    i = end
    while text[i - 1].isspace():
        i -= 1
    if text[i - 1] == ">":
        depth = 0
        while True:
            i -= 1
            depth += (text[i] in ">)") - (text[i] in "<(")
            if depth == 0:
                break
    while re.match(r"[\w.:]", text[i - 1]):
        i -= 1
    return i


def translate_launches(text):
    opening = re.compile(r"<<\s?<(?=[^=])")
    while True:
        match = opening.search(text)
        if not match:
            return text
        start = start_of_kernel(text, match.start())
        i, depth = match.end(), 0
        while depth > 0 or not re.match(r">\s?>\s?>\s*\(", text[i:i + 40]):
            depth += (text[i] in "([{") - (text[i] in ")]}")
            i += 1
        ends = re.match(r">\s?>\s?>", text[i:])
        kernel = text[start:match.start()].strip()
        arguments = text.index("(", i + ends.end()) + 1
        name = " ".join(kernel.split()).replace('"', "")
        text = "%s::emulator::configure(\"%s\", %s).run(0, %s, %s" % (
            text[:start], name, text[match.end():i], kernel, text[arguments:])


DYNAMIC = re.compile(r"extern\s+EMULATOR_SHARED\s+(?:__attribute__\s*\(\(aligned\(\d+\)\)\)\s*)?"
                     r"(\w+)\s+(\w+)\s*\[\s*\]\s*;")
STATIC = re.compile(r"\bEMULATOR_SHARED\s+(?:__attribute__\s*\(\(aligned\((\d+)\)\)\)\s*)?([^;]*);")


def translate_shared(text):
    # In the style of these sources what stands in no function starts its line.
    for match in reversed(list(DYNAMIC.finditer(text))):
        place = "static_cast<%s *>(::emulator::dynamic_shared())" % match[1]
        before, behind = text[:match.start()], text[match.end():]
        if before.endswith("\n"):
            behind = re.sub(r"\b%s\b" % match[2], "(%s)" % place, behind)
            text = before + behind
        else:
            text = "%s%s *const %s = %s;%s" % (before, match[1], match[2], place, behind)

    def variables(match):
        alignment, declaration = match[1] or "1", match[2]
        declarators = split(declaration, ",")
        first = re.match(r"\s*((?:[\w:]+\s+)*?[\w:]+(?:<[^;<>]*>)?)\s+(\w+\s*(?:\[.*)?)$",
                         declarators[0], re.S)
        if not first:
            raise Unknown("shared variables that the emulator does not know: " + declaration)
        out = []
        for declarator in [first[2]] + declarators[1:]:
            name = re.match(r"\s*(\w+)", declarator)[1]
            rest = declarator.strip()[len(name):]
            out.append("typedef %s emulator_type_of_%s%s; static const char emulator_key_of_%s = 0; "
                       "emulator_type_of_%s &%s = *static_cast<emulator_type_of_%s *>("
                       "::emulator::static_shared(&emulator_key_of_%s, sizeof(emulator_type_of_%s), "
                       "%s > alignof(emulator_type_of_%s) ? %s : alignof(emulator_type_of_%s)));" % (
                           first[1], name, rest, name, name, name, name, name, name, alignment, name,
                           alignment, name))
        return " ".join(out)

    return STATIC.sub(variables, text)


def translate_addresses(text):
    """An address that has lost its type tells the emulator what it was: cudaLaunchKernel needs it."""
    return re.sub(r"\(const void \*\)(?=[A-Za-z_])", "::emulator::kernel_cast->*", text)


def refuse_masks(text):
    for match in re.finditer(r"__(?:shfl|any|all|ballot)\w*_sync\(\s*([^,()]+),", text):
        mask = match[1].strip()
        if not re.fullmatch(r"0xffffffff[uU]?|unsigned", mask):
            raise Unknown("lanes that the emulator does not know: " + match[0])


def main():
    source, target = sys.argv[1:3]
    with open(source, encoding="utf-8") as file:
        text = file.read()
    try:
        refuse_masks(text)
        text = translate_shared(translate_launches(translate_addresses(translate_asm(text))))
        # as host compilers of nvcc have it: one of all, whichever source it is in
        text = text.replace("template <> constexpr", "template <> inline constexpr")
        # what puts arrays into the device's registers only takes the host's compiler time
        text = re.sub(r"(?m)^\s*#\s*pragma (no)?unroll\b.*$", "", text)
    except Unknown as unknown:
        sys.exit("%s: %s" % (source, unknown))
    with open(target, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
