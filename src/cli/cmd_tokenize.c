/* cmd_tokenize.c: text to token ids with their strings and offsets, and ids back to text. Opens the tokenizer alone. */
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *token_of(const cli_settings *s, const tf_tokenizer *t, int32_t id)
{
    const char *token;

    cli_check(s, tf_tokenizer_token(t, id, &token));
    return token;
}

/* ------------------------------------------------------------- decode ---- */

/* The ids of one text, such as "101 7592 102" or "101,7592,102". */
static int32_t *ids_read(const cli_settings *s, tf_text text, int64_t *count)
{
    char *const list = cli_alloc(cli_text_size(text) + 1, 1);
    int32_t *const ids = cli_alloc(cli_text_size(text) / 2 + 1, sizeof *ids);
    const char *at = memcpy(list, text.data, (size_t)cli_text_size(text));
    int64_t id;

    for (*count = 0; cli_number_next(&at, &id); (*count)++) {
        if (id < 0 || id > INT32_MAX) cli_fail(s, CLI_REFUSED, "%lld is no token id", (long long)id);
        ids[*count] = (int32_t)id;
    }
    if (!at) cli_fail(s, CLI_REFUSED, "'%s' is no list of token ids", list);
    free(list);
    return ids;
}

static void decode_one(const cli_settings *s, const tf_tokenizer *t, tf_text text)
{
    tf_decode_options o;
    tf_status status;
    int64_t count, size = 0;
    int32_t *const ids = ids_read(s, text, &count);
    char *decoded;

    tf_decode_options_init(&o);
    o.skip_special_tokens = s->skip_special;
    status = tf_tokenizer_decode(t, ids, count, &o, NULL, 0, &size);
    if (status != TF_STATUS_TOO_SMALL) cli_check(s, status);
    decoded = cli_alloc(size, 1);
    cli_check(s, tf_tokenizer_decode(t, ids, count, &o, decoded, size, &size));
    if (cli_on(s->json)) {
        cli_json_begin(NULL, '{');
        cli_json_begin("ids", '[');
        for (int64_t i = 0; i < count; i++) cli_json_integer(NULL, ids[i]);
        cli_json_end(']');
        cli_json_text("text", decoded, size);
        cli_json_end('}');
    } else {
        fwrite(decoded, 1, (size_t)size, stdout);
        putchar('\n');
    }
    free(decoded);
    free(ids);
}

/* The arguments are one list of ids; without arguments each line is one. */
static void decode(const cli_settings *s, const tf_tokenizer *t)
{
    cli_texts texts;
    size_t size = 1;
    char *list;

    cli_texts_open(&texts, s, false);
    for (int64_t i = 0; i < texts.count; i++) {
        if (texts.buffer) decode_one(s, t, texts.texts[i]);
        else size += strlen(texts.texts[i].data) + 1;
    }
    if (!texts.buffer) {
        list = cli_alloc((int64_t)size, 1);
        for (int64_t i = 0; i < texts.count; i++) strcat(strcat(list, texts.texts[i].data), " ");
        decode_one(s, t, tf_text_of(list));
        free(list);
    }
    cli_texts_close(&texts);
}

/* ------------------------------------------------------------- encode ---- */

static void row_table(const cli_settings *s, const tf_tokenizer *t, const cli_texts *texts, const tf_encoding_data *d,
                      int64_t row)
{
    static const cli_column columns[] = {{"token", 40, false}, {"id", 0, true},         {"type", 0, true},  {"word", 0, true},
                                         {"bytes", 0, true},   {"characters", 0, true}, {"text", 40, false}};
    const int64_t text = d->row_text[row];
    cli_table table;

    cli_table_open(&table, columns, 7);
    for (int64_t i = d->row_start[row]; i < d->row_start[row + 1]; i++) {
        const tf_text *const of = d->sequence[i] == 1 ? texts->pairs : texts->texts;

        cli_table_text(&table, token_of(s, t, d->ids[i]), -1);
        cli_table_cell(&table, "%d", (int)d->ids[i]);
        cli_table_cell(&table, "%d", (int)d->type_ids[i]);
        if (d->sequence[i] < 0) {
            for (int c = 3; c < 7; c++) cli_table_text(&table, "", 0);
            continue;
        }
        cli_table_cell(&table, "%d", (int)d->word[i]);
        cli_table_cell(&table, "%lld-%lld", (long long)d->byte_begin[i], (long long)d->byte_end[i]);
        cli_table_cell(&table, "%lld-%lld", (long long)d->char_begin[i], (long long)d->char_end[i]);
        cli_table_text(&table, of[text].data + d->byte_begin[i], d->byte_end[i] - d->byte_begin[i]);
    }
    cli_heading("text: ", texts->texts[text]);
    if (texts->pairs) cli_heading("pair: ", texts->pairs[text]);
    cli_table_print(&table);
    printf("%lld tokens\n\n", (long long)(d->row_start[row + 1] - d->row_start[row]));
    cli_table_close(&table);
}

static void json_integers(const char *key, const int32_t *values, int64_t begin, int64_t end)
{
    cli_json_begin(key, '[');
    for (int64_t i = begin; i < end; i++) cli_json_integer(NULL, values[i]);
    cli_json_end(']');
}

static void json_ranges(const char *key, const int64_t *from, const int64_t *to, int64_t begin, int64_t end)
{
    cli_json_begin(key, '[');
    for (int64_t i = begin; i < end; i++) cli_json_range(NULL, from[i], to[i]);
    cli_json_end(']');
}

static void row_json(const cli_settings *s, const tf_tokenizer *t, const cli_texts *texts, const tf_encoding_data *d,
                     int64_t row)
{
    const int64_t begin = d->row_start[row], end = d->row_start[row + 1];

    cli_json_begin_text(texts, d->row_text[row]);
    json_integers("ids", d->ids, begin, end);
    cli_json_begin("tokens", '[');
    for (int64_t i = begin; i < end; i++) cli_json_text(NULL, token_of(s, t, d->ids[i]), -1);
    cli_json_end(']');
    json_integers("type_ids", d->type_ids, begin, end);
    json_integers("sequence", d->sequence, begin, end);
    json_integers("word", d->word, begin, end);
    json_ranges("bytes", d->byte_begin, d->byte_end, begin, end);
    json_ranges("characters", d->char_begin, d->char_end, begin, end);
    cli_json_end('}');
}

static void encode_options(tf_tokenize_options *o, const cli_settings *s)
{
    tf_tokenize_options_init(o);
    if (cli_on(s->no_special)) o->add_special_tokens = 0;
    o->truncation = s->truncation;
    if (s->truncation == TF_UNSET && (s->max_length != TF_UNSET || s->stride != TF_UNSET))
        o->truncation = TF_TRUNCATION_LONGEST_FIRST;
    o->max_length = s->max_length;
    o->stride = s->stride;
    if (s->stride != TF_UNSET) o->overflow = 1;
    o->replace_invalid = s->replace_invalid;
}

static void encode(const cli_settings *s, const tf_tokenizer *t)
{
    tf_tokenize_options o;
    tf_encoding_data d;
    tf_encoding *encoding;
    cli_texts texts;

    encode_options(&o, s);
    cli_texts_open(&texts, s, cli_on(s->pair));
    cli_check(s, tf_encoding_open(t, &encoding));
    if (texts.count > 0) cli_check(s, tf_tokenizer_encode(t, texts.texts, texts.pairs, texts.count, &o, encoding));
    tf_encoding_data_init(&d);
    cli_check(s, tf_encoding_get(encoding, &d));
    for (int64_t row = 0; row < d.rows; row++) (cli_on(s->json) ? row_json : row_table)(s, t, &texts, &d, row);
    tf_encoding_close(encoding);
    cli_texts_close(&texts);
}

void cli_tokenize(const cli_settings *s)
{
    tf_tokenizer_options o;
    tf_tokenizer *t;

    tf_tokenizer_options_init(&o);
    if (!cli_on(s->quiet)) o.log = cli_log;
    o.mecab_dictionary = s->mecab_dictionary;
    cli_check(s, tf_tokenizer_open(cli_model_path(s), &o, &t));
    (cli_on(s->decode) ? decode : encode)(s, t);
    tf_tokenizer_close(t);
}
