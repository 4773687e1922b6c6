/* pickle.c: the pickle machine. A stack of values, a memo that opcodes store into and fetch from, and about forty opcodes,
 * after Python's Lib/pickletools.py. What the few known globals mean when they are called: torch/_utils.py. */
#include "io/pickle.h"

#include <string.h>

#include "base/status.h"
#include "io/weights.h"

/* All opcodes of protocols 0 to 5: those that are not read are refused by these names. */
/* clang-format off */
#define OPCODES(X) \
    X(MARK, '(') X(STOP, '.') X(POP, '0') X(POP_MARK, '1') X(DUP, '2') X(FLOAT, 'F') X(INT, 'I') \
    X(BININT, 'J') X(BININT1, 'K') X(LONG, 'L') X(BININT2, 'M') X(NONE, 'N') X(PERSID, 'P') X(BINPERSID, 'Q') \
    X(REDUCE, 'R') X(STRING, 'S') X(BINSTRING, 'T') X(SHORT_BINSTRING, 'U') X(UNICODE, 'V') X(BINUNICODE, 'X') \
    X(APPEND, 'a') X(BUILD, 'b') X(GLOBAL, 'c') X(DICT, 'd') X(EMPTY_DICT, '}') X(APPENDS, 'e') X(GET, 'g') \
    X(BINGET, 'h') X(INST, 'i') X(LONG_BINGET, 'j') X(LIST, 'l') X(EMPTY_LIST, ']') X(OBJ, 'o') X(PUT, 'p') \
    X(BINPUT, 'q') X(LONG_BINPUT, 'r') X(SETITEM, 's') X(TUPLE, 't') X(EMPTY_TUPLE, ')') X(SETITEMS, 'u') \
    X(BINFLOAT, 'G') X(BINBYTES, 'B') X(SHORT_BINBYTES, 'C') X(PROTO, 0x80) X(NEWOBJ, 0x81) X(EXT1, 0x82) \
    X(EXT2, 0x83) X(EXT4, 0x84) X(TUPLE1, 0x85) X(TUPLE2, 0x86) X(TUPLE3, 0x87) X(NEWTRUE, 0x88) \
    X(NEWFALSE, 0x89) X(LONG1, 0x8a) X(LONG4, 0x8b) X(SHORT_BINUNICODE, 0x8c) X(BINUNICODE8, 0x8d) \
    X(BINBYTES8, 0x8e) X(EMPTY_SET, 0x8f) X(ADDITEMS, 0x90) X(FROZENSET, 0x91) X(NEWOBJ_EX, 0x92) \
    X(STACK_GLOBAL, 0x93) X(MEMOIZE, 0x94) X(FRAME, 0x95) X(BYTEARRAY8, 0x96) X(NEXT_BUFFER, 0x97) \
    X(READONLY_BUFFER, 0x98)
/* clang-format on */

enum {
#define OPCODE_ENUM(name, byte) OP_##name = byte,
    OPCODES(OPCODE_ENUM)
#undef OPCODE_ENUM
};

static const char *opcode_name(uint8_t byte)
{
    static const char *const names[256] = {
#define OPCODE_NAME(name, byte) [byte] = #name,
        OPCODES(OPCODE_NAME)
#undef OPCODE_NAME
    };
    return names[byte] ? names[byte] : "no opcode";
}

/* What a global is: a dtype of storages, a function that may be called, or a name that is only carried around. */
typedef enum global_role {
    ROLE_STORAGE,
    ROLE_VALUE,
    ROLE_CALL_IGNORED, /* its result is of no use to a state dict's reader */
    ROLE_ORDERED_DICT,
    ROLE_TENSOR,
    ROLE_PARAMETER
} global_role;

typedef struct tfi_pickle_global {
    const char *module, *name;
    global_role role;
    tfi_dtype dtype; /* of ROLE_STORAGE */
} tfi_pickle_global;

static const tfi_pickle_global globals[] = {
    {"collections", "OrderedDict", ROLE_ORDERED_DICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", ROLE_TENSOR, 0},
    {"torch._utils", "_rebuild_tensor", ROLE_TENSOR, 0}, /* before PyTorch 0.4 */
    {"torch._utils", "_rebuild_parameter", ROLE_PARAMETER, 0},
    {"torch._utils", "_rebuild_parameter_with_state", ROLE_PARAMETER, 0},
    {"torch", "FloatStorage", ROLE_STORAGE, TFI_F32},
    {"torch", "BFloat16Storage", ROLE_STORAGE, TFI_BF16},
    {"torch", "HalfStorage", ROLE_STORAGE, TFI_F16},
    {"torch", "DoubleStorage", ROLE_STORAGE, TFI_F64},
    {"torch", "LongStorage", ROLE_STORAGE, TFI_I64},
    {"torch", "IntStorage", ROLE_STORAGE, TFI_I32},
    {"torch", "ShortStorage", ROLE_STORAGE, TFI_I16},
    {"torch", "CharStorage", ROLE_STORAGE, TFI_I8},
    {"torch", "ByteStorage", ROLE_STORAGE, TFI_U8},
    {"torch", "BoolStorage", ROLE_STORAGE, TFI_BOOL},
    {"torch", "Size", ROLE_CALL_IGNORED, 0},
    {"torch", "device", ROLE_CALL_IGNORED, 0},
    {"_codecs", "encode", ROLE_CALL_IGNORED, 0}, /* how protocol 2 writes bytes */
    {"torch", "float32", ROLE_VALUE, 0},
    {"torch", "bfloat16", ROLE_VALUE, 0},
    {"torch", "float16", ROLE_VALUE, 0},
    {"torch", "float64", ROLE_VALUE, 0},
    {"torch", "int64", ROLE_VALUE, 0},
    {"torch", "int32", ROLE_VALUE, 0},
    {"torch", "int16", ROLE_VALUE, 0},
    {"torch", "int8", ROLE_VALUE, 0},
    {"torch", "uint8", ROLE_VALUE, 0},
    {"torch", "bool", ROLE_VALUE, 0},
};

typedef struct machine {
    tfi_arena *arena;
    const uint8_t *at, *end;
    tfi_pickle_value *stack, *memo;
    size_t depth, stack_size, memo_count, memo_size;
    tfi_pickle *out;
} machine;

static const char *kind_name(tfi_pickle_kind kind)
{
    static const char *const names[] = {"a value of another kind",
                                        "a mark",
                                        "a bool",
                                        "an int",
                                        "a string",
                                        "a tuple",
                                        "a list",
                                        "a dict",
                                        "a global",
                                        "a storage",
                                        "a tensor"};
    return names[kind];
}

static int is_text(const tfi_pickle_value *v, const char *text)
{
    return v->kind == TFI_PICKLE_TEXT && v->size == strlen(text) && memcmp(v->as.text, text, v->size) == 0;
}

/* The next n bytes, or NULL with the error set. */
static const uint8_t *take(machine *m, uint64_t n)
{
    const uint8_t *p = m->at;

    if (n > (uint64_t)(m->end - p)) {
        (void)tfi_fail(TF_STATUS_CORRUPT, "%llu bytes are needed, %zu are left", (unsigned long long)n, (size_t)(m->end - p));
        return NULL;
    }
    m->at += n;
    return p;
}

static tf_status grow(machine *m, tfi_pickle_value **array, size_t *size)
{
    const size_t larger = *size ? 2 * *size : 256;
    tfi_pickle_value *p = tfi_realloc(m->arena->memory, *array, *size * sizeof *p, larger * sizeof *p);

    if (!p) return TF_STATUS_NOMEM;
    *array = p;
    *size = larger;
    return TF_STATUS_OK;
}

static tf_status push(machine *m, tfi_pickle_value v)
{
    tf_status status;

    if (m->depth == m->stack_size && (status = grow(m, &m->stack, &m->stack_size)) < 0) return status;
    m->stack[m->depth++] = v;
    return TF_STATUS_OK;
}

static tf_status push_integer(machine *m, tfi_pickle_kind kind, int64_t integer)
{
    return push(m, (tfi_pickle_value){.kind = kind, .as.integer = integer});
}

/* The topmost value, which stays there, or NULL with the error set; a mark is no value. */
static tfi_pickle_value *top(machine *m)
{
    if (m->depth > 0 && m->stack[m->depth - 1].kind != TFI_PICKLE_MARK) return &m->stack[m->depth - 1];
    (void)tfi_fail(TF_STATUS_CORRUPT, "a value is taken from an empty stack");
    return NULL;
}

static tf_status pop(machine *m, tfi_pickle_value *out)
{
    const tfi_pickle_value *v = top(m);

    if (!v) return TF_STATUS_CORRUPT;
    *out = *v;
    m->depth--;
    return TF_STATUS_OK;
}

/* The values above the last mark; they and the mark are off the stack, but stay in place until the next push. */
static tf_status pop_to_mark(machine *m, const tfi_pickle_value **items, size_t *count)
{
    size_t i = m->depth;

    *items = NULL;
    *count = 0;
    while (i > 0 && m->stack[i - 1].kind != TFI_PICKLE_MARK) i--;
    if (i == 0) return tfi_fail(TF_STATUS_CORRUPT, "there is no mark on the stack");
    *items = m->stack + i;
    *count = m->depth - i;
    m->depth = i - 1;
    return TF_STATUS_OK;
}

static tf_status push_tuple(machine *m, const tfi_pickle_value *items, size_t count)
{
    tfi_pickle_value *copy = tfi_arena_alloc(m->arena, count * sizeof *copy);

    if (!copy) return TF_STATUS_NOMEM;
    if (count > UINT32_MAX) return tfi_fail(TF_STATUS_CORRUPT, "a tuple of %zu items", count);
    if (count) memcpy(copy, items, count * sizeof *copy);
    return push(m, (tfi_pickle_value){.kind = TFI_PICKLE_TUPLE, .size = (uint32_t)count, .as.items = copy});
}

/* TUPLE1 to TUPLE3: the topmost `count` values. */
static tf_status short_tuple(machine *m, size_t count)
{
    tfi_pickle_value items[3];
    tf_status status;

    for (size_t i = count; i-- > 0;)
        if ((status = pop(m, &items[i])) < 0) return status;
    return push_tuple(m, items, count);
}

static tf_status push_container(machine *m, tfi_pickle_kind kind)
{
    tfi_pickle_container *c = tfi_arena_alloc(m->arena, sizeof *c);

    if (!c) return TF_STATUS_NOMEM;
    return push(m, (tfi_pickle_value){.kind = kind, .as.container = c});
}

/* Add `count` values that are off the stack to the list or dict on top of it. */
static tf_status append(machine *m, tfi_pickle_kind kind, const tfi_pickle_value *values, size_t count)
{
    const tfi_pickle_value *v = top(m);

    if (!v) return TF_STATUS_CORRUPT;
    if (v->kind != kind) return tfi_fail(TF_STATUS_CORRUPT, "items of %s are put into %s", kind_name(kind), kind_name(v->kind));
    if (kind == TFI_PICKLE_DICT && count % 2 != 0) return tfi_fail(TF_STATUS_CORRUPT, "a key of a dict has no value");
    for (size_t i = 0; i < count; i++) {
        tfi_pickle_container *c = v->as.container;
        tfi_pickle_item *item = tfi_arena_alloc(m->arena, sizeof *item);
        if (!item) return TF_STATUS_NOMEM;
        item->value = values[i];
        *(c->last ? &c->last->next : &c->first) = item;
        c->last = item;
    }
    return TF_STATUS_OK;
}

/* APPEND and SETITEM: the topmost `count` values go into the container below them. */
static tf_status append_top(machine *m, tfi_pickle_kind kind, size_t count)
{
    tfi_pickle_value values[2];
    tf_status status;

    for (size_t i = count; i-- > 0;)
        if ((status = pop(m, &values[i])) < 0) return status;
    return append(m, kind, values, count);
}

static tf_status append_marked(machine *m, tfi_pickle_kind kind)
{
    const tfi_pickle_value *values;
    size_t count;
    tf_status status;

    if ((status = pop_to_mark(m, &values, &count)) < 0) return status;
    return append(m, kind, values, count);
}

/* Picklers number their puts 0, 1, 2, ...; holding a file to that bounds the memo by what it stores. */
static tf_status put(machine *m, uint64_t index)
{
    const tfi_pickle_value *v = top(m);
    tf_status status;

    if (!v) return TF_STATUS_CORRUPT;
    if (index > m->memo_count)
        return tfi_fail(TF_STATUS_CORRUPT, "memo entry %llu is stored when there are %zu", (unsigned long long)index,
                        m->memo_count);
    if (index == m->memo_size && (status = grow(m, &m->memo, &m->memo_size)) < 0) return status;
    m->memo[index] = *v;
    if (index == m->memo_count) m->memo_count++;
    return TF_STATUS_OK;
}

static tf_status get(machine *m, uint64_t index)
{
    if (index >= m->memo_count)
        return tfi_fail(TF_STATUS_CORRUPT, "memo entry %llu is fetched when there are %zu", (unsigned long long)index,
                        m->memo_count);
    return push(m, m->memo[index]);
}

static tf_status read_text(machine *m, uint64_t size)
{
    const uint8_t *p = take(m, size);

    if (!p) return TF_STATUS_CORRUPT;
    return push(m, (tfi_pickle_value){.kind = TFI_PICKLE_TEXT, .size = (uint32_t)size, .as.text = (const char *)p});
}

static tf_status skip(machine *m, uint64_t size)
{
    return take(m, size) ? TF_STATUS_OK : TF_STATUS_CORRUPT;
}

static tf_status read_other(machine *m, uint64_t size)
{
    const tf_status status = skip(m, size);
    return status < 0 ? status : push(m, (tfi_pickle_value){.kind = TFI_PICKLE_OTHER});
}

/* A little-endian two's complement number of any length; those beyond 64 bits are values of no use here. */
static tf_status read_long(machine *m, size_t size)
{
    uint64_t bits = 0;
    const uint8_t *p = take(m, size);

    if (!p) return TF_STATUS_CORRUPT;
    if (size > 8) return push(m, (tfi_pickle_value){.kind = TFI_PICKLE_OTHER});
    for (size_t i = 0; i < size; i++) bits |= (uint64_t)p[i] << 8 * i;
    if (size > 0 && size < 8 && p[size - 1] & 0x80) bits |= UINT64_MAX << 8 * size;
    return push_integer(m, TFI_PICKLE_INT, (int64_t)bits);
}

static tf_status push_global(machine *m, tfi_pickle_value module, tfi_pickle_value name)
{
    if (module.kind != TFI_PICKLE_TEXT || name.kind != TFI_PICKLE_TEXT)
        return tfi_fail(TF_STATUS_CORRUPT, "the name of a global is no string");
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (is_text(&module, globals[i].module) && is_text(&name, globals[i].name))
            return push(m, (tfi_pickle_value){.kind = TFI_PICKLE_GLOBAL, .as.global = &globals[i]});
    return tfi_fail(TF_STATUS_UNSUPPORTED, "the global %s.%s is refused: no plain state dict needs it",
                    tfi_show(module.as.text, module.size).text, tfi_show(name.as.text, name.size).text);
}

/* Text up to a newline, as GLOBAL has it. */
static tf_status read_line(machine *m, tfi_pickle_value *out)
{
    const uint8_t *begin = m->at, *newline = memchr(begin, '\n', (size_t)(m->end - begin));

    if (!newline || newline - begin > UINT16_MAX) return tfi_fail(TF_STATUS_CORRUPT, "the name of a global does not end");
    m->at = newline + 1;
    *out = (tfi_pickle_value){.kind = TFI_PICKLE_TEXT, .size = (uint32_t)(newline - begin), .as.text = (const char *)begin};
    return TF_STATUS_OK;
}

static tf_status read_global(machine *m)
{
    tfi_pickle_value module, name;
    tf_status status;

    if ((status = read_line(m, &module)) < 0) return status;
    if ((status = read_line(m, &name)) < 0) return status;
    return push_global(m, module, name);
}

static tf_status stack_global(machine *m)
{
    tfi_pickle_value module, name;
    tf_status status;

    if ((status = pop(m, &name)) < 0) return status;
    if ((status = pop(m, &module)) < 0) return status;
    return push_global(m, module, name);
}

/* ("storage", class, key, location, element count [, None]) becomes a storage. */
static tf_status persistent_id(machine *m)
{
    tfi_pickle_value id;
    tf_status status;

    if ((status = pop(m, &id)) < 0) return status;
    const tfi_pickle_value *v = id.as.items;
    if (id.kind != TFI_PICKLE_TUPLE || id.size < 5 || !is_text(&v[0], "storage") || v[2].kind != TFI_PICKLE_TEXT ||
        v[4].kind != TFI_PICKLE_INT || v[4].as.integer < 0)
        return tfi_fail(TF_STATUS_CORRUPT, "a persistent id that describes no storage");
    if (v[1].kind != TFI_PICKLE_GLOBAL || v[1].as.global->role != ROLE_STORAGE)
        return tfi_fail(TF_STATUS_CORRUPT, "storage %s: its class is %s", tfi_show(v[2].as.text, v[2].size).text,
                        v[1].kind == TFI_PICKLE_GLOBAL ? v[1].as.global->name : kind_name(v[1].kind));
    if (id.size > 6 || (id.size == 6 && v[5].kind != TFI_PICKLE_OTHER))
        return tfi_fail(TF_STATUS_UNSUPPORTED, "storage %s: a view of another storage", tfi_show(v[2].as.text, v[2].size).text);

    tfi_pickle_storage *s = tfi_arena_alloc(m->arena, sizeof *s);
    if (!s) return TF_STATUS_NOMEM;
    *s = (tfi_pickle_storage){
        .key = v[2].as.text, .key_size = v[2].size, .dtype = v[1].as.global->dtype, .count = v[4].as.integer};
    s->next = m->out->storages;
    m->out->storages = s;
    m->out->storage_count++;
    return push(m, (tfi_pickle_value){.kind = TFI_PICKLE_STORAGE, .as.storage = s});
}

/* A tuple of `rank` integers. */
static tf_status read_dimensions(const tfi_pickle_value *v, const char *what, int64_t *out)
{
    for (uint32_t i = 0; i < v->size; i++) {
        if (v->as.items[i].kind != TFI_PICKLE_INT)
            return tfi_fail(TF_STATUS_CORRUPT, "a tensor's %s holds %s", what, kind_name(v->as.items[i].kind));
        out[i] = v->as.items[i].as.integer;
    }
    return TF_STATUS_OK;
}

/* (storage, offset, shape, strides, ...): what follows is about gradients. */
static tf_status rebuild_tensor(machine *m, tfi_pickle_value args)
{
    const tfi_pickle_value *v = args.as.items;
    tf_status status;

    if (args.size < 4 || v[0].kind != TFI_PICKLE_STORAGE || v[1].kind != TFI_PICKLE_INT || v[2].kind != TFI_PICKLE_TUPLE ||
        v[3].kind != TFI_PICKLE_TUPLE || v[2].size != v[3].size)
        return tfi_fail(TF_STATUS_CORRUPT, "a tensor without storage, offset, shape and strides");
    if (v[2].size > TFI_RANK_MAX)
        return tfi_fail(TF_STATUS_UNSUPPORTED, "a tensor of %u dimensions; %d is the most", v[2].size, TFI_RANK_MAX);

    tfi_pickle_tensor *t = tfi_arena_alloc(m->arena, sizeof *t);
    if (!t) return TF_STATUS_NOMEM;
    t->storage = v[0].as.storage;
    t->offset = v[1].as.integer;
    t->rank = (int)v[2].size;
    if ((status = read_dimensions(&v[2], "shape", t->shape)) < 0) return status;
    if ((status = read_dimensions(&v[3], "strides", t->stride)) < 0) return status;
    return push(m, (tfi_pickle_value){.kind = TFI_PICKLE_TENSOR, .as.tensor = t});
}

static tf_status reduce(machine *m)
{
    tfi_pickle_value function, args;
    tf_status status;

    if ((status = pop(m, &args)) < 0) return status;
    if ((status = pop(m, &function)) < 0) return status;
    if (function.kind != TFI_PICKLE_GLOBAL || args.kind != TFI_PICKLE_TUPLE)
        return tfi_fail(TF_STATUS_CORRUPT, "%s is called with %s", kind_name(function.kind), kind_name(args.kind));

    const tfi_pickle_global *g = function.as.global;
    switch (g->role) {
    case ROLE_ORDERED_DICT:
        if (args.size != 0) return tfi_fail(TF_STATUS_UNSUPPORTED, "OrderedDict is called with arguments");
        return push_container(m, TFI_PICKLE_DICT);
    case ROLE_TENSOR:
        return rebuild_tensor(m, args);
    case ROLE_PARAMETER:
        if (args.size == 0 || args.as.items[0].kind != TFI_PICKLE_TENSOR)
            return tfi_fail(TF_STATUS_CORRUPT, "a parameter without a tensor");
        return push(m, args.as.items[0]);
    case ROLE_CALL_IGNORED:
        return push(m, (tfi_pickle_value){.kind = TFI_PICKLE_OTHER});
    default:
        return tfi_fail(TF_STATUS_UNSUPPORTED, "%s.%s is called", g->module, g->name);
    }
}

/* Sets attributes. A state dict has one, _metadata, which no weight depends on. */
static tf_status build(machine *m)
{
    tfi_pickle_value attributes;
    const tfi_pickle_value *object;
    tf_status status;

    if ((status = pop(m, &attributes)) < 0) return status;
    if (!(object = top(m))) return TF_STATUS_CORRUPT;
    if (object->kind != TFI_PICKLE_DICT) return tfi_fail(TF_STATUS_UNSUPPORTED, "attributes of %s", kind_name(object->kind));
    return TF_STATUS_OK;
}

/* Opcodes followed by a number of 1, 2, 4 or 8 bytes. */
static int argument_size(uint8_t op)
{
    switch (op) {
    case OP_PROTO:
    case OP_BININT1:
    case OP_BINGET:
    case OP_BINPUT:
    case OP_LONG1:
    case OP_SHORT_BINSTRING:
    case OP_SHORT_BINBYTES:
    case OP_SHORT_BINUNICODE:
        return 1;
    case OP_BININT2:
        return 2;
    case OP_BININT:
    case OP_LONG_BINGET:
    case OP_LONG_BINPUT:
    case OP_BINSTRING:
    case OP_BINUNICODE:
    case OP_BINBYTES:
        return 4;
    case OP_FRAME:
        return 8;
    default:
        return 0;
    }
}

static tf_status step_with_argument(machine *m, uint8_t op, int size)
{
    const uint8_t *p = take(m, (uint64_t)size);

    if (!p) return TF_STATUS_CORRUPT;
    const uint32_t n = size == 1 ? p[0] : size == 2 ? tfi_read_u16(p) : tfi_read_u32(p);
    switch (op) {
    case OP_PROTO:
        return n <= 5 ? TF_STATUS_OK : tfi_fail(TF_STATUS_UNSUPPORTED, "pickle protocol %u", n);
    case OP_BININT:
        return push_integer(m, TFI_PICKLE_INT, (int32_t)n);
    case OP_BININT1:
    case OP_BININT2:
        return push_integer(m, TFI_PICKLE_INT, n);
    case OP_LONG1:
        return read_long(m, n);
    case OP_BINGET:
    case OP_LONG_BINGET:
        return get(m, n);
    case OP_BINPUT:
    case OP_LONG_BINPUT:
        return put(m, n);
    case OP_BINBYTES:
    case OP_SHORT_BINBYTES:
        return read_other(m, n);
    case OP_FRAME: /* tells a streaming reader how much to fetch */
        return TF_STATUS_OK;
    default:
        return read_text(m, n);
    }
}

static tf_status step(machine *m, uint8_t op)
{
    const tfi_pickle_value *items;
    size_t count;
    tf_status status;

    switch (op) {
    case OP_NONE:
        return push(m, (tfi_pickle_value){.kind = TFI_PICKLE_OTHER});
    case OP_NEWTRUE:
    case OP_NEWFALSE:
        return push_integer(m, TFI_PICKLE_BOOL, op == OP_NEWTRUE);
    case OP_BINFLOAT:
        return read_other(m, 8);
    case OP_MARK:
        return push(m, (tfi_pickle_value){.kind = TFI_PICKLE_MARK});
    case OP_EMPTY_TUPLE:
        return push_tuple(m, NULL, 0);
    case OP_TUPLE1:
    case OP_TUPLE2:
    case OP_TUPLE3:
        return short_tuple(m, (size_t)(op - OP_TUPLE1 + 1));
    case OP_TUPLE:
        return (status = pop_to_mark(m, &items, &count)) < 0 ? status : push_tuple(m, items, count);
    case OP_EMPTY_LIST:
        return push_container(m, TFI_PICKLE_LIST);
    case OP_EMPTY_DICT:
        return push_container(m, TFI_PICKLE_DICT);
    case OP_APPEND:
        return append_top(m, TFI_PICKLE_LIST, 1);
    case OP_SETITEM:
        return append_top(m, TFI_PICKLE_DICT, 2);
    case OP_APPENDS:
        return append_marked(m, TFI_PICKLE_LIST);
    case OP_SETITEMS:
        return append_marked(m, TFI_PICKLE_DICT);
    case OP_MEMOIZE:
        return put(m, m->memo_count);
    case OP_GLOBAL:
        return read_global(m);
    case OP_STACK_GLOBAL:
        return stack_global(m);
    case OP_BINPERSID:
        return persistent_id(m);
    case OP_REDUCE:
        return reduce(m);
    case OP_BUILD:
        return build(m);
    default:
        return tfi_fail(TF_STATUS_UNSUPPORTED, "the opcode 0x%02x (%s) is refused: no plain state dict needs it", op,
                        opcode_name(op));
    }
}

static tf_status run(machine *m, const uint8_t *data)
{
    for (;;) {
        const size_t offset = (size_t)(m->at - data);
        const uint8_t *op = take(m, 1);
        tf_status status = op ? TF_STATUS_OK : TF_STATUS_CORRUPT;
        if (op && *op == OP_STOP) status = pop(m, &m->out->root);
        else if (op && argument_size(*op)) status = step_with_argument(m, *op, argument_size(*op));
        else if (op) status = step(m, *op);
        if (status < 0) return tfi_fail_prefix(status, "byte %zu of the pickle: ", offset);
        if (*op == OP_STOP) return TF_STATUS_OK;
    }
}

tf_status tfi_pickle_read(tfi_arena *arena, const uint8_t *data, size_t size, tfi_pickle *out)
{
    machine m = {.arena = arena, .at = data, .end = data + size, .out = out};

    memset(out, 0, sizeof *out);
    const tf_status status = run(&m, data);
    out->size = (size_t)(m.at - data);
    tfi_free(arena->memory, m.stack, m.stack_size * sizeof *m.stack);
    tfi_free(arena->memory, m.memo, m.memo_size * sizeof *m.memo);
    return status;
}

const tfi_pickle_value *tfi_pickle_find(const tfi_pickle_container *dict, const char *key)
{
    for (const tfi_pickle_item *i = dict->first; i; i = i->next->next)
        if (is_text(&i->value, key)) return &i->next->value;
    return NULL;
}
