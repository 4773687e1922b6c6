/* The list that is read without a tree, its numbers against the C library's, its strings against jansson's; and stems against
 * the tries they are made of. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json_list.h"
#include "check.h"
#include "tokenizer/stems.h"
#include "tokenizer/trie.h"
#include "tokenizer/unicode.h"

#define SAYS(condition, ...)                                                                                                   \
    do {                                                                                                                       \
        check_count++;                                                                                                         \
        if (!(condition)) check_failed(__FILE__, __LINE__, __VA_ARGS__);                                                       \
    } while (0)

static tfi_memory memory;

static uint32_t below(uint32_t n)
{
    return (uint32_t)(check_random() >> 20) % n;
}

static int parse(const char *text, json_t **root, tfi_json_list lists[2])
{
    static const char *const inner[] = {"vocab", "merges"};

    return tfi_json_parse_around(text, strlen(text), "test.json", "model", inner, 2, &memory, root, lists) == TF_STATUS_OK;
}

/* Members until the first that is none; -1 if there is one such. */
static int count_members(const char *text)
{
    tfi_json_list lists[2];
    tfi_json_pair pair;
    json_t *root;
    int n = 0, more = -1;

    if (!parse(text, &root, lists)) return -2;
    if (lists[0].begin)
        while ((more = tfi_json_list_pair(&lists[0], &pair)) > 0) n++;
    json_decref(root);
    return more < 0 ? -1 : n;
}

static void test_lists(void)
{
    static const struct {
        const char *text;
        int members; /* -1: wrong in the list; -2: wrong around it */
    } cases[] = {
        {"{\"model\":{\"vocab\":[]}}", 0},
        {" {\"a\":{\"vocab\":[1]},\"model\" : { \"b\":\"}]\\\"\", \"vocab\" : [ [\"a\",1] , [ \"\\u00e9\" , -0.5e-3 ] ] } } ",
         2},
        {"{\"model\":{\"vocab\":[[\"]\",1],[\"\\\"[\",2]],\"c\":[[]]}}", 2},
        {"{\"model\":{\"vocab\":[[\"a\",1],]}}", -1},
        {"{\"model\":{\"vocab\":[,[\"a\",1]]}}", -1},
        {"{\"model\":{\"vocab\":[[\"a\",1][\"b\",1]]}}", -1},
        {"{\"model\":{\"vocab\":[[\"a\",01]]}}", -1},
        {"{\"model\":{\"vocab\":[[\"a\",1.]]}}", -1},
        {"{\"model\":{\"vocab\":[[\"a\",-]]}}", -1},
        {"{\"model\":{\"vocab\":[[\"a\",1e]]}}", -1},
        {"{\"model\":{\"vocab\":[[\"a\",null]]}}", -1},
        {"{\"model\":{\"vocab\":[[\"a\",1,2]]}}", -1},
        {"{\"model\":{\"vocab\":[[\"a\n\",1]]}}", -1},
        {"{\"model\":{\"vocab\":[[\"a\",1]}}", -2},
        {"{\"model\":{\"vocab\":[[\"a\",1]],\"vocab\":[]}}", -2},
        {"{\"model\":{\"vocab\":[[\"a\",1]]}", -2},
        {"{\"model\":{\"vocab\":{\"a\":1 , \"}:\\\"\" : 2.5}}}", 2},
        {"{\"model\":{\"vocab\":{\"a\":1,}}}", -1},
        {"{\"model\":{\"vocab\":{\"a\":[1]}}}", -1},
        {"{\"model\":{\"vocab\":{\"a\",1}}}", -1},
        {"{\"model\":{\"vocab\":{[\"a\",1]}}}", -1},
        {"{\"model\":{\"vocab\":[\"a\":1]}}", -1},
        {"{\"model\":{\"vocab\":{\"a\":1]}}", -2},
        {"{\"model\":{\"vocab\":7}}", -1},
        {"[]", -1}};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int got = count_members(cases[i].text);
        SAYS(got == cases[i].members, "%s: %d, expected %d", cases[i].text, got, cases[i].members);
    }
    SAYS(memory.used == 0, "%" PRId64 " bytes are left", (int64_t)memory.used);
}

/* All strings of the list of merges, one of a pair behind ' ' and its other one behind '+'; "-1" or "-2" as above. */
static void join_texts(const char *text, char *out)
{
    tfi_json_list lists[2];
    tfi_json_text texts[2];
    json_t *root;
    int more = -1;

    strcpy(out, "-2");
    if (!parse(text, &root, lists)) return;
    *out = '\0';
    const size_t bound = lists[1].begin ? tfi_json_list_bound(&lists[1]) : 0;
    size_t n = 0;
    for (; lists[1].begin && (more = tfi_json_list_texts(&lists[1], texts)) > 0; n++)
        for (int i = 0; i < more; i++) sprintf(out + strlen(out), "%s%.*s", i ? "+" : " ", (int)texts[i].size, texts[i].data);
    SAYS(more < 0 || n <= bound, "%s: %zu members, at most %zu said", text, n, bound);
    json_t *model = json_object_get(root, "model"), *merges = json_object_get(model, "merges");
    SAYS(!lists[1].begin || json_array_size(merges) + json_object_size(merges) == 0, "%s: the tree has them", text);
    SAYS(more < 0 || json_object_get(model, "z"), "%s: the tree has not what is behind", text);
    json_decref(root);
    if (more < 0) strcpy(out, "-1");
}

static void test_texts(void)
{
    static const struct {
        const char *text, *all;
    } cases[] = {
        {"{\"model\":{\"merges\":[],\"z\":1}}", ""},
        {"{\"model\":{\"merges\":[\"a b\", \"c,[ d\" ,\"\\\" \\u0120\"],\"z\":1}}", " a b c,[ d \\\" \\u0120"},
        {"{\"model\":{\"vocab\":{\"]\":1},\"merges\": [[\"a\",\"b\"], [ \"]\" , \"\" ] ] ,\"z\":{}}}", " a+b ]+"},
        {"{\"model\":{\"merges\":[\"a b\"],\"vocab\":{\"merges\":1},\"z\":\"\"}}", " a b"},
        {"{\"model\":{\"merges\":[\"a b\"],\"z\":1},\"merges\":[\"z\"]}", " a b"},
        {"{\"model\":{\"z\":1},\"merges\":[\"a b\"]}", "-1"},
        {"{\"model\":{\"merges\":[\"a\",],\"z\":1}}", "-1"},
        {"{\"model\":{\"merges\":[,\"a\"],\"z\":1}}", "-1"},
        {"{\"model\":{\"merges\":[\"a\" \"b\"],\"z\":1}}", "-1"},
        {"{\"model\":{\"merges\":[[\"a\"]],\"z\":1}}", "-1"},
        {"{\"model\":{\"merges\":[[\"a\",\"b\",\"c\"]],\"z\":1}}", "-1"},
        {"{\"model\":{\"merges\":[[\"a\",\"b\"],1],\"z\":1}}", "-1"},
        {"{\"model\":{\"merges\":[[\"a\",[\"b\"]]],\"z\":1}}", "-1"},
        {"{\"model\":{\"merges\":[{\"a\":\"b\"}],\"z\":1}}", "-1"},
        {"{\"model\":{\"merges\":[\"a\"],\"merges\":[],\"z\":1}}", "-2"},
        {"{\"model\":{\"merges\":[\"a\"],\"vocab\":[,\"z\":1}}", "-2"},
        {"{\"model\":{\"merges\":[\"a],\"z\":1}}", "-2"},
    };
    char got[256];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        join_texts(cases[i].text, got);
        SAYS(strcmp(got, cases[i].all) == 0, "%s: \"%s\", expected \"%s\"", cases[i].text, got, cases[i].all);
    }
    SAYS(memory.used == 0, "%" PRId64 " bytes are left", (int64_t)memory.used);
}

/* A string of any bytes that JSON may hold, escaped at random, against jansson's reading of it. */
static void test_strings(void)
{
    static const char *const parts[] = {"a",     "\\n",          "\\\"",   "\\u0041", "\\u00e9", "\\ud83d\\ude00",
                                        "\\/",   "\xe2\x96\x81", "\\b",    "\\\\",    "\\t",     "\\ud83d",
                                        "\\u12", "\\x",          "\\ude00"};

    for (int draw = 0; draw < 20000; draw++) {
        char text[200], out[200];
        int size = snprintf(text, sizeof text, "\"");
        const int wild = below(10) == 0;
        for (int n = (int)below(8); n > 0; n--)
            size += snprintf(text + size, sizeof text - (size_t)size, "%s", parts[below(wild ? 15 : 11)]);
        size += snprintf(text + size, sizeof text - (size_t)size, "\"");
        json_t *theirs = json_loadb(text, (size_t)size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        const tfi_json_text quoted = {.data = text + 1, .size = (size_t)size - 2, .has_escapes = 1};
        const int64_t got = tfi_json_unescape(&quoted, out);
        SAYS((got >= 0) == (theirs != NULL), "%s: %" PRId64, text, got);
        if (theirs && got >= 0)
            SAYS((size_t)got == json_string_length(theirs) && memcmp(out, json_string_value(theirs), (size_t)got) == 0, "%s",
                 text);
        json_decref(theirs);
    }
}

static void test_numbers(void)
{
    for (int draw = 0; draw < 200000; draw++) {
        char text[64];
        double number = ((double)below(1u << 31) / (1u << 30) - 1) * (double)below(40);
        if (draw % 3 == 0) number = (float)number;
        snprintf(text, sizeof text, draw % 2 ? "%.17g" : "%.16g", draw % 5 ? number : number * 1e-20);
        if (draw % 7 == 0) snprintf(text, sizeof text, "%u.%09u%09u", below(20), below(1000000000), below(1000000000));
        const double got = tfi_json_number_nearest(text, strlen(text)), want = strtod(text, NULL);
        SAYS(got == want, "%s: %.17g, expected %.17g", text, got, want);
    }
    const tfi_json_number n = tfi_json_number_read("-12345678901234567890123.45e-3", 30);
    SAYS(n.digits == 12345678901234567890u && n.exponent == 0 && n.is_negative && !n.is_whole, "%" PRIu64 " %d", n.digits,
         (int)n.exponent);
}

static uint32_t any_point(uint32_t letters)
{
    static const uint32_t begins[] = {'a', 0x80, 0x3041, 0x4e00, 0xfff0, 0x1f600};
    const uint32_t c = begins[below(6)] + below(letters);

    return c >= 0xd800 && c < 0xe000 ? 'a' : c;
}

/* Random strings over few letters, so that they share much, and over many that want the same places; walked with strings that
 * are there and others, beside a trie of their bytes. */
static void test_stems(void)
{
    for (int draw = 0; draw < 30; draw++) {
        const uint32_t strings = 1 + below(3000), letters = 1 + below(draw % 3 ? 2000 : 3);
        const int are_floats = draw % 2;
        static double scores[3000];
        tfi_trie trie;
        tfi_stems stems;
        tfi_sprout *sprout;
        CHECK_OK(tfi_trie_open(&trie, &memory, 64));
        CHECK_OK(tfi_stems_open(&stems, &memory, below(100)));
        for (uint32_t i = 0; i < strings; i++) {
            uint8_t text[48];
            uint32_t size = 0;
            int32_t *value;
            for (uint32_t k = 1 + below(12); k > 0; k--) size += tfi_utf8_encode(any_point(letters), text + size);
            CHECK_OK(tfi_trie_add(&trie, text, size, &value));
            CHECK_OK(tfi_stems_add(&stems, text, size, &sprout));
            SAYS(sprout->id == *value, "%d, expected %d", (int)sprout->id, (int)*value);
            sprout->id = *value = (int32_t)i;
            scores[i] = are_floats ? -(double)i : -(double)i / 3;
            sprout->is_marker = i % 5 == 0;
        }
        CHECK_OK(tfi_stems_pack(&stems, scores));
        SAYS(are_floats || strings < 2 || stems.scores, "doubles are lost");
        for (int probe = 0; probe < 5000; probe++) {
            uint32_t node = TFI_TRIE_ROOT, stem = TFI_STEM_ROOT, size = 0;
            uint8_t text[4 * 14];
            for (int k = 0; k < 14; k++) {
                const uint32_t c = any_point(below(20) ? letters : 3000), begin = size;
                size += tfi_utf8_encode(c, text + size);
                for (uint32_t i = begin; i < size && (i == 0 || node); i++) node = tfi_trie_step(&trie, node, text[i]);
                stem = k ? tfi_stems_step(&stems, stem, c) : tfi_stems_first(&stems, c);
                SAYS((stem != 0) == (node != 0), "code point %x", (unsigned)c);
                const int32_t id = node ? trie.values[node] : TFI_TRIE_NONE;
                SAYS(tfi_stems_find(&stems, text, size) == id, "the id is not %d", (int)id);
                if (!stem || !node) break;
                SAYS(stems.stems[stem].id == id, "%d, expected %d", (int)stems.stems[stem].id, (int)id);
                if (id == TFI_TRIE_NONE) continue;
                const int is_marker = id % 5 == 0;
                const double score = is_marker ? -INFINITY : are_floats ? -(double)id : -(double)id / 3;
                SAYS(tfi_stems_score(&stems, stem) == score, "the score of %d", (int)id);
                SAYS((stems.stems[stem].bits & TFI_STEM_PIECE) == (is_marker ? 0 : TFI_STEM_PIECE), "the kind of %d", (int)id);
            }
        }
        SAYS(tfi_stems_find(&stems, (const uint8_t *)"\xe3\x81", 2) == TFI_TRIE_NONE, "half a code point is found");
        tfi_stems_close(&stems);
        tfi_trie_close(&trie);
        SAYS(memory.used == 0, "%" PRId64 " bytes are left", (int64_t)memory.used);
    }
}

int main(int argc, char **argv)
{
    tfi_memory_init(&memory, NULL, TF_UNSET);
    check_run(argc, argv, "lists", test_lists);
    check_run(argc, argv, "texts", test_texts);
    check_run(argc, argv, "strings", test_strings);
    check_run(argc, argv, "numbers", test_numbers);
    check_run(argc, argv, "stems", test_stems);
    return check_done();
}
