/* The C++ headers with exceptions: who owns what, what is thrown, tasks beside the same calls of C, tokens as a range, callbacks that
 * throw. Linked to the same program, hpp_returning.cpp has the form without exceptions, hpp_expected.cpp the one asked for. */
#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <thread>

#include <tfinfer/tfinfer.hpp>

#include "check.h"
extern "C" {
#include "tiny_decoder.h"
#include "tiny_model.h"
}

void returning_cases(int argc, char **argv);
void expected_cases(int argc, char **argv);

namespace
{

tfinfer::model open_tiny(const char *path, check_memory *memory = nullptr)
{
    tfinfer::model_options o;
    o.threads = 2;
    if (memory) {
        check_memory_init(memory);
        o.allocator = &memory->hooks;
    }
    return tfinfer::model::open(path, o);
}

/* The status that `call` throws, and its text. */
template <class Call> tf_status thrown(Call call, std::string *what = nullptr)
{
    try {
        call();
    } catch (const tfinfer::error &e) {
        if (what) *what = e.what();
        return e.status();
    }
    return TF_STATUS_OK;
}

bool has(const std::string &text, const char *part)
{
    return text.find(part) != std::string::npos;
}

/* ---- without a directory ---- */

tf_status read_into_memory(void *user, const char *name, tf_file *out)
{
    auto &files = *static_cast<std::map<std::string, std::string> *>(user);
    std::ifstream in(std::string(tiny_model_path(TINY_BASE)) + "/" + name, std::ios::binary);
    if (!in) return TF_STATUS_NOT_FOUND;
    std::string &bytes = files[name] = std::string(std::istreambuf_iterator<char>(in), {});
    out->data = bytes.data();
    out->size = static_cast<std::int64_t>(bytes.size());
    return TF_STATUS_OK;
}

void opens_from_a_source()
{
    std::map<std::string, std::string> files;
    tfinfer::source from;
    from.file = read_into_memory;
    from.user = &files;
    tfinfer::model_options o;
    o.threads = 2;
    std::int64_t seen = 0;
    auto there = tfinfer::session::open(open_tiny(tiny_model_path(TINY_BASE)));
    const auto model = tfinfer::model::open(from, o, [&](std::int64_t done, std::int64_t) { return seen = done, true; });
    auto here = tfinfer::session::open(model);
    CHECK(seen > 0 && files.count("config.json") == 1);
    CHECK(there.embed("the cat").values == here.embed("the cat").values);
    CHECK_STATUS(thrown([&] { (void)tfinfer::model::open(from, o, [](std::int64_t, std::int64_t) { return false; }); }),
                 TF_STATUS_CANCELLED);
    const auto words = tfinfer::tokenizer::open(from);
    CHECK(words.encode("the cat").ids().size() == tfinfer::tokenizer::open(from, "vocab.txt").encode("the cat").ids().size());
    from.file = nullptr;
    CHECK_STATUS(thrown([&] { (void)tfinfer::model::open(from, o); }), TF_STATUS_INVALID);
}

/* ---- ownership ---- */

void handles_move_and_close()
{
    check_memory memory;
    {
        tfinfer::model m = open_tiny(tiny_model_path(TINY_BASE), &memory);
        tfinfer::model moved = std::move(m);
        CHECK(!m && moved); // NOLINT: a handle that was moved from is empty
        CHECK_STATUS(thrown([&] { m.info(); }), TF_STATUS_INVALID);
        CHECK_STATUS(thrown([&] { tfinfer::session::open(m); }), TF_STATUS_INVALID);
        m.close();

        tfinfer::session s = tfinfer::session::open(moved), other;
        CHECK(!other);
        CHECK_STATUS(thrown([&] { other.embed("x"); }), TF_STATUS_INVALID);
        moved.close();
        moved.close();
        CHECK(!moved);
        CHECK_INT(s.embed("the cat").width, TINY_WIDTH); /* the session keeps what it needs of the model */
        other = std::move(s);
        CHECK_INT(other.embed("the cat").size(), 1);
        other = tfinfer::session(); /* closes */
        CHECK_INT(memory.live_blocks, 0);
    }
    CHECK_INT(memory.live_blocks, 0);
    {
        tfinfer::model m = open_tiny(tiny_model_path(TINY_BASE), &memory);
        tf_model *const c = m.release();
        CHECK(!m && memory.live_blocks > 0);
        const tfinfer::model again(c);
        CHECK_INT(again.info().width, TINY_WIDTH);
        { /* lent: closing it closes nothing */
            tfinfer::tokenizer t = again.tokenizer();
            const tfinfer::tokenizer same = std::move(t);
            CHECK(!t); // NOLINT
            CHECK(same.info().vocab_size > 0);
        }
        CHECK(again.tokenizer().encode("the cat").ids().size() > 2);
    }
    CHECK_INT(memory.live_blocks, 0);
}

void requests_close_with_their_callbacks()
{
    check_memory memory;
    {
        const tfinfer::model m = open_tiny(tiny_decoder_path(TINY_GPT2), &memory);
        tfinfer::session s = tfinfer::session::open(m);
        int calls = 0;
        tfinfer::request g = s.generate("ab", {}, [&](std::int32_t, tfinfer::span<const std::int32_t>, tfinfer::span<float>) {
            calls++;
            return true;
        });
        tfinfer::token t;
        CHECK_STATUS(g.next(t), TF_STATUS_OK);
        tfinfer::request moved = std::move(g); /* in the middle; the callback goes along */
        CHECK_STATUS(thrown([&] { g.next(t); }), TF_STATUS_INVALID);
        CHECK_STATUS(moved.next(t), TF_STATUS_OK);
        CHECK(calls >= 2);
        moved = s.generate("cd"); /* ends the first */
        s.close();
        CHECK(!moved.text().empty());
    }
    CHECK_INT(memory.live_blocks, 0);
}

/* A request is closed while another thread drives, and so calls its function. */
void requests_close_while_others_drive()
{
    const tfinfer::model m = open_tiny(tiny_decoder_path(TINY_GPT2));
    tfinfer::session s = tfinfer::session::open(m);
    tfinfer::generate_options o;
    o.max_new_tokens = 30;

    std::thread driver([&] {
        for (int i = 0; i < 20; i++) CHECK(!s.generate("cd", o).text().empty());
    });
    for (std::size_t i = 0; i < 40; i++) {
        std::vector<std::size_t> held(100, i); /* freed with the function */
        tfinfer::request g = s.generate("ab", o, [held, i](auto, auto, auto) { return held[99] == i; });
        tfinfer::token t;
        CHECK_STATUS(g.next(t), TF_STATUS_OK);
    }
    driver.join();
}

/* ---- errors ---- */

void errors_carry_status_and_text()
{
    std::string what;

    CHECK_STATUS(thrown([] { tfinfer::model::open("nowhere"); }, &what), TF_STATUS_NOT_FOUND);
    CHECK(has(what, tf_status_string(TF_STATUS_NOT_FOUND)) && has(what, tf_last_error()) && has(what, "nowhere"));
    CHECK_STATUS(thrown([] { tfinfer::tokenizer::open("nowhere"); }), TF_STATUS_NOT_FOUND);

    tfinfer::session_options o;
    o.max_step_tokens = 0;
    const tfinfer::model m = open_tiny(tiny_model_path(TINY_BASE));
    CHECK_STATUS(thrown([&] { tfinfer::session::open(m, o); }, &what), TF_STATUS_INVALID);
    CHECK(has(what, "max_step_tokens"));

    tfinfer::session s = tfinfer::session::open(m);
    CHECK_STATUS(thrown([&] { s.classify("x"); }), TF_STATUS_UNSUPPORTED);
    CHECK_STATUS(thrown([&] { s.embed("\xff"); }), TF_STATUS_INVALID);
    CHECK_INT(s.embed(tfinfer::input("\xff").replace_invalid()).size(), 1);
    const std::vector<std::string> two = {"a", "b"};
    CHECK_STATUS(thrown([&] { s.embed(tfinfer::input::pairs(two, "c")); }, &what), TF_STATUS_INVALID);
    CHECK(has(what, "pairs"));
    /* What the sizes of views give away is refused before C reads beyond them. */
    const std::vector<std::int32_t> ids = {TINY_CLS, 6, 7, TINY_SEP}, lens = {2, 3};
    CHECK_STATUS(thrown([&] { s.embed(tfinfer::input::ids(ids, lens)); }, &what), TF_STATUS_INVALID);
    CHECK(has(what, "lens"));
    CHECK_STATUS(thrown([&] { s.embed(tfinfer::input::ids(ids).with_type_ids(lens)); }), TF_STATUS_INVALID);
    const std::vector<float> rows(TINY_WIDTH);
    CHECK_STATUS(thrown([&] { s.embed(tfinfer::input::embeddings(rows, lens)); }), TF_STATUS_INVALID);
    std::vector<float> small(2 * TINY_WIDTH - 1);
    CHECK_STATUS(thrown([&] { s.embed(two, small, TINY_WIDTH); }), TF_STATUS_INVALID);
    CHECK_STATUS(thrown([&] { s.embed("a", small, TINY_WIDTH - 1); }), TF_STATUS_INVALID);
    CHECK_STATUS(thrown([&] { s.embed("a", small, 0); }), TF_STATUS_INVALID);
}

template <class Ours, class C> void same_as_c(void (*init)(C *))
{
    alignas(C) unsigned char bytes[sizeof(C)] = {};
    const Ours ours;

    static_assert(sizeof(Ours) == sizeof(C));
    init(reinterpret_cast<C *>(bytes));
    CHECK_INT(memcmp(bytes, static_cast<const C *>(&ours), sizeof bytes), 0);
}

void options_are_born_unset()
{
    same_as_c<tfinfer::source>(tf_source_init);
    same_as_c<tfinfer::tokenizer_options>(tf_tokenizer_options_init);
    same_as_c<tfinfer::encoding_arrays>(tf_encoding_arrays_init);
    same_as_c<tfinfer::tokenize_options>(tf_tokenize_options_init);
    same_as_c<tfinfer::decode_options>(tf_decode_options_init);
    same_as_c<tfinfer::model_options>(tf_model_options_init);
    same_as_c<tfinfer::session_options>(tf_session_options_init);
    same_as_c<tfinfer::embed_options>(tf_embed_options_init);
    same_as_c<tfinfer::classify_options>(tf_classify_options_init);
    same_as_c<tfinfer::token_classify_options>(tf_token_classify_options_init);
    same_as_c<tfinfer::answer_options>(tf_answer_options_init);
    same_as_c<tfinfer::fill_mask_options>(tf_fill_mask_options_init);
    same_as_c<tfinfer::generate_options>(tf_generate_options_init);
    same_as_c<tfinfer::encode_output>(tf_encode_output_init);
}

/* ---- tasks, beside C ---- */

void embeds_as_c()
{
    const tfinfer::model m = open_tiny(tiny_model_path(TINY_BASE));
    tfinfer::session s = tfinfer::session::open(m);
    const tf_text lines[2] = {tf_text_of("the cat sat"), tf_text_of("rates rose")};
    const tf_input in = tiny_texts(lines, 2);
    float c[2 * TINY_WIDTH];

    CHECK_OK(tf_embed(s.c(), &in, nullptr, c, TINY_WIDTH));
    const auto same = [&](const tfinfer::matrix &v) {
        CHECK_INT(v.width, TINY_WIDTH);
        CHECK_INT(v.size(), 2);
        CHECK_INT(v[1].size(), TINY_WIDTH);
        CHECK(std::equal(v.values.begin(), v.values.end(), c));
    };
    same(s.embed({"the cat sat", "rates rose"}));
    const std::vector<std::string> strings = {"the cat sat", "rates rose"};
    same(s.embed(strings));
    same(s.embed(std::vector<std::string_view>(strings.begin(), strings.end())));
    const char *const plain[] = {"the cat sat", "rates rose"};
    same(s.embed(plain));

    float wide[2 * TINY_WIDTH + 3] = {};
    s.embed(strings, wide, TINY_WIDTH + 3);
    CHECK(std::equal(c, c + TINY_WIDTH, wide) && std::equal(c + TINY_WIDTH, c + 2 * TINY_WIDTH, wide + TINY_WIDTH + 3));
    double sum = 0;
    for (const float x : s.embed(strings)[1]) sum += static_cast<double>(x);
    CHECK(sum == std::accumulate(c + TINY_WIDTH, c + 2 * TINY_WIDTH, 0.0));
    CHECK_INT(s.embed(std::vector<std::string>()).size(), 0);
    CHECK(s.stats().calls >= 5);

    /* The same from ids, all in one array. */
    const tfinfer::encoding e = m.tokenizer().encode(strings);
    std::vector<std::int32_t> lens;
    for (std::size_t i = 0; i < e.size(); i++) lens.push_back(static_cast<std::int32_t>(e[i].ids.size()));
    same(s.embed(tfinfer::input::ids(e.ids(), lens)));
    const tfinfer::matrix second = s.embed(tfinfer::input::ids(e[1].ids));
    CHECK(std::equal(second.values.begin(), second.values.end(), c + TINY_WIDTH));

    std::vector<float> hidden(e.ids().size() * TINY_WIDTH, -7.f);
    const std::int32_t last[] = {TINY_LAYERS};
    tfinfer::encode_output out;
    tfinfer::set_list(out.layers, out.layer_count, last);
    out.hidden = hidden.data();
    s.encode(strings, out);
    CHECK(std::find(hidden.begin(), hidden.end(), -7.f) == hidden.end());
}

void finds_as_c()
{
    {
        const tfinfer::model m = open_tiny(tiny_model_path(TINY_CLASSIFIER));
        tfinfer::session s = tfinfer::session::open(m);
        const tfinfer::classification r = s.classify({"the cat", "a", "rates"});
        CHECK(r.scores.size() == 3 && r.logits.size() == 3 && r.scores.width == TINY_LABELS);
        const auto row = r.scores[2];
        CHECK(std::abs(std::accumulate(row.begin(), row.end(), 0.0) - 1) < 1e-5);
        CHECK_INT(s.classify(tfinfer::input::pairs("who", "the cat")).scores.size(), 1);
    }
    {
        const tfinfer::model m = open_tiny(tiny_model_path(TINY_TAGGER));
        tfinfer::session s = tfinfer::session::open(m);
        tfinfer::token_classify_options o;
        o.aggregation = TF_AGGREGATION_NONE;
        o.keep_all = 1;
        const tfinfer::found<tf_entity> all = s.token_classify({"the cat", "", "rates"}, o);
        CHECK(all.size() == 3 && all[0].size() >= 2 && all[1].empty());
        CHECK(all[0].size() >= 2 && all[0][1].byte_begin == 4 && all[0][1].byte_end > 4 && all[0][1].label);
    }
    {
        const tfinfer::model m = open_tiny(tiny_model_path(TINY_ANSWERER));
        tfinfer::session s = tfinfer::session::open(m);
        tfinfer::answer_options o;
        o.top_k = 2;
        const tfinfer::found<tf_span> all = s.answer(tfinfer::input::pairs("who", "the cat sat on a mat"), o);
        CHECK(all.size() == 1 && all[0].size() == 2 && all[0][0].score >= all[0][1].score);
    }
    {
        const tfinfer::model m = open_tiny(tiny_model_path(TINY_MASKED_LM));
        tfinfer::session s = tfinfer::session::open(m);
        tfinfer::fill_mask_options o;
        const std::int32_t targets[] = {6, 7};
        tfinfer::set_list(o.targets, o.target_count, targets);
        o.top_k = 2;
        const tfinfer::found<tf_fill> all = s.fill_mask("the [MASK] sat", o);
        CHECK(all.size() == 1 && all[0].size() == 2 && all[0][0].id + all[0][1].id == 13);
        std::int64_t ids = 0; /* results without a name live as long as the loop */
        for (const tf_fill &f : s.fill_mask("the [MASK] sat", o)[0]) ids += f.id;
        CHECK_INT(ids, 13);
        CHECK_STATUS(thrown([&] { s.fill_mask("no mask"); }), TF_STATUS_INVALID);
    }
}

void models_tell_about_themselves()
{
    const tfinfer::model m = open_tiny(tiny_model_path(TINY_CLASSIFIER));

    CHECK_TEXT(m.info().family, "bert");
    CHECK(has(m.graph(), "LINEAR") && m.graph().size() > 1);
    CHECK(has(m.graph(TF_GRAPH_DOT), "digraph"));
    CHECK(tfinfer::model::plan(tiny_model_path(TINY_CLASSIFIER)).weight_bytes > 0);
    CHECK_TEXT(tfinfer::version(), tf_version());
}

/* ---- tokenizer ---- */

void tokenizes()
{
    const tfinfer::tokenizer t = tfinfer::tokenizer::open(tiny_model_path(TINY_BASE));
    const tfinfer::encoding e = t.encode({"the cat", ""});

    CHECK_INT(e.size(), 2);
    CHECK(e[0].ids.size() >= 4 && e[0].ids[0] == TINY_CLS && e[1].ids.size() == 2 && e[1].text == 1);
    CHECK(e[0].byte_begin[2] == 4 && e[0].sequence[0] == -1 && e[0].word[1] == 0 && e[0].type_ids[1] == 0);
    CHECK(t.token(TINY_CLS) == "[CLS]" && t.id("[SEP]") == std::optional<std::int32_t>(TINY_SEP));
    CHECK(!t.id("no such token"));
    CHECK(t.decode({TINY_CLS, TINY_SEP}) == "[CLS] [SEP]");
    CHECK_STATUS(thrown([&] { t.token(-5); }), TF_STATUS_INVALID);
    CHECK_STATUS(thrown([&] { t.encode_pairs({"a", "b"}, "c"); }), TF_STATUS_INVALID);

    std::array<std::int32_t, 16> ids = {}, mask = {};
    tfinfer::encoding_arrays arrays;
    arrays.ids = ids.data();
    arrays.mask = mask.data();
    arrays.row_capacity = 2;
    arrays.width = 0;
    const tfinfer::extent need = e.write(arrays);
    CHECK(!need.fits && need.rows == 2 && need.tokens == 2 * static_cast<std::int64_t>(e[0].ids.size()));
    arrays.token_capacity = static_cast<std::int64_t>(ids.size());
    const tfinfer::extent done = e.write(arrays);
    CHECK(done.fits && ids[e[0].ids.size()] == TINY_CLS && mask[e[0].ids.size() + 2] == 0);

    tfinfer::encoding reused;
    t.encode_pairs("a", "b", reused);
    tf_encoding *const first = reused.c();
    t.encode("the cat", reused);
    CHECK(reused.c() == first && reused.size() == 1);
    CHECK(std::equal(reused.ids().begin(), reused.ids().end(), e[0].ids.begin()));

    tfinfer::decode_options o;
    o.skip_special_tokens = 1;
    const std::string whole = t.decode(e[0].ids, o);
    CHECK_TEXT(whole.c_str(), "the cat");
    std::vector<std::int32_t> many;
    for (int i = 0; i < 200; i++) many.insert(many.end(), e[0].ids.begin(), e[0].ids.end());
    const std::string repeated = t.decode(many); /* longer than the room tried first, or not: the same */
    tfinfer::text_stream stream = tfinfer::text_stream::open(t);
    std::string pieces;
    for (const std::int32_t id : many) pieces += stream.push(id);
    pieces += stream.finish();
    CHECK_TEXT(pieces.c_str(), repeated.c_str());
    CHECK_STATUS(thrown([&] { stream.push(1 << 30); }), TF_STATUS_INVALID);
    stream.reset();
    CHECK(t.encode(std::vector<std::string>()).size() == 0);
}

/* ---- generation ---- */

void tokens_are_a_range()
{
    const tfinfer::model m = open_tiny(tiny_decoder_path(TINY_GPT2));
    tfinfer::session s = tfinfer::session::open(m);
    tfinfer::generate_options o;
    std::string text;
    std::vector<std::int32_t> ids;
    o.max_new_tokens = 12;
    o.logprobs = 1;
    o.keep_logits = 1;
    o.do_sample = 1;
    o.seed = 5;
    o.eos_count = 0;
    static const std::int32_t none[] = {0};
    o.eos_ids = none;
    o.temperature = 1.5f;

    tfinfer::request g = s.generate("abc", o);
    for (const tfinfer::token &t : g) {
        text += t.text;
        if (t.id >= 0) ids.push_back(t.id);
    }
    CHECK_STATUS(g.status(), TF_STATUS_END);
    CHECK(g.begin() == g.end()); /* once through */
    const tfinfer::generated r = g.result();
    CHECK_INT(r.ids.size(), 12);
    CHECK(std::equal(ids.begin(), ids.end(), r.ids.begin(), r.ids.end()));
    CHECK(text == r.text && r.logprobs.size() == 12 && r.finish == TF_FINISH_LENGTH && r.prompt_count == 3);
    std::vector<float> logits(TINY_GPT2_VOCAB);
    g.scores(TF_SCORES_LOGITS, 0, 0, logits);
    CHECK_STATUS(thrown([&] { g.scores(TF_SCORES_PROCESSED, 0, 0, logits); }), TF_STATUS_NOT_FOUND);
    CHECK_STATUS(thrown([&] { g.result(1); }), TF_STATUS_INVALID);
    CHECK(s.generate("abc", o).text() == text);

    std::size_t count = 0; /* a request without a name lives as long as the loop */
    for (const tfinfer::token &t : s.generate("abc", o)) count += t.id >= 0;
    CHECK_INT(count, 12);

    const std::int32_t prompt[] = {'a', 'b', 'c'};
    CHECK(s.generate(tfinfer::input::ids(prompt), o).text() == text);
    CHECK(!s.generate(tfinfer::input::ids({}), o).text().empty()); /* from the bos token */
    CHECK(s.generate(tfinfer::input::ids({'a', 'b', 'c'}), o).text() == text);
    CHECK_INT(s.generate(tfinfer::input::ids({0, 'b'}), o).result().prompt_count, 2); /* no pointer with a size */
    o.temperature = -1;
    CHECK_STATUS(thrown([&] { s.generate("abc", o); }), TF_STATUS_INVALID);
}

void waiting_ends_with_answers()
{
    const tfinfer::model m = open_tiny(tiny_decoder_path(TINY_T5));
    tfinfer::session s = tfinfer::session::open(m);
    tfinfer::generate_options o;
    tfinfer::token t;
    o.num_beams = 2;
    o.num_return_sequences = 2;
    o.max_new_tokens = 6;

    CHECK_STATUS(s.step(), TF_STATUS_END);
    tfinfer::request g = s.generate("abc", o);
    CHECK_STATUS(g.next(t, 0), TF_STATUS_TIMEOUT);
    CHECK_STATUS(g.wait(0), TF_STATUS_TIMEOUT);
    while (s.step() == TF_STATUS_OK) {
    }
    CHECK_STATUS(g.wait(0), TF_STATUS_OK);
    CHECK(g.result(0).score >= g.result(1).score);
    CHECK_STATUS(g.next(t, 0), TF_STATUS_OK);

    o.num_beams = 1;
    o.num_return_sequences = 1;
    tfinfer::request cancelled = s.generate("abc", o);
    std::thread([&] { cancelled.cancel(); }).join();
    CHECK_STATUS(thrown([&] {
                     while (cancelled.next(t) == TF_STATUS_OK) continue;
                 }),
                 TF_STATUS_CANCELLED);
    CHECK_STATUS(cancelled.status(), TF_STATUS_CANCELLED);
}

/* ---- callbacks ---- */

struct stopped {
    int number;
};

void callbacks_may_throw()
{
    const tfinfer::model m = open_tiny(tiny_decoder_path(TINY_GPT2));
    tfinfer::session s = tfinfer::session::open(m);
    tfinfer::generate_options o;
    o.max_new_tokens = o.min_new_tokens = 8; /* no end token before the callback has thrown */

    /* Only 'x' may come. */
    const auto only_x = [](std::int32_t sequence, tfinfer::span<const std::int32_t> ids, tfinfer::span<float> logits) {
        CHECK(sequence == 0 && ids.size() >= 1 && logits.size() == TINY_GPT2_VOCAB);
        for (std::size_t i = 0; i < logits.size(); i++)
            if (i != 'x') logits[i] = -1e30f;
        return true;
    };
    CHECK(s.generate("ab", o, only_x).text() == "xxxxxxxx");

    int caught = 0;
    tfinfer::request g = s.generate("ab", o, [n = 0](auto, auto, auto) mutable { return ++n < 3 ? true : throw stopped{n}; });
    tfinfer::request beside = s.generate("cd", o);
    CHECK_STATUS(beside.wait(), TF_STATUS_OK); /* drives both: what the other's callback throws is not its affair */
    try {
        for (const tfinfer::token &t : g) CHECK(t.id >= 0);
    } catch (const stopped &e) {
        caught = e.number;
    }
    CHECK_INT(caught, 3);
    CHECK_STATUS(thrown([&] { s.generate("ab", o, [](auto, auto, auto) { return false; }).text(); }), TF_STATUS_CANCELLED);

    const tfinfer::model encoder = open_tiny(tiny_model_path(TINY_BASE));
    tfinfer::session e = tfinfer::session::open(encoder);
    std::int64_t most = 0;
    e.embed(tfinfer::input("the cat").progress([&](std::int64_t done, std::int64_t total) {
        most = std::max(most, done);
        return done <= total;
    }));
    CHECK(most > 0);
    caught = 0;
    try {
        e.embed(tfinfer::input("the cat").progress([](std::int64_t, std::int64_t) -> bool { throw stopped{4}; }));
    } catch (const stopped &x) {
        caught = x.number;
    }
    CHECK_INT(caught, 4);
    CHECK_STATUS(thrown([&] { e.embed(tfinfer::input("a").progress([](auto, auto) { return false; })); }), TF_STATUS_CANCELLED);
    CHECK_INT(e.embed("the cat").size(), 1); /* the session goes on */

    caught = 0;
    try {
        tfinfer::model::open(tiny_model_path(TINY_BASE), {}, [](std::int64_t, std::int64_t) -> bool { throw stopped{5}; });
    } catch (const stopped &x) {
        caught = x.number;
    }
    CHECK_INT(caught, 5);
}

} // namespace

int main(int argc, char **argv)
{
    check_run(argc, argv, "opens_from_a_source", opens_from_a_source);
    check_run(argc, argv, "handles_move_and_close", handles_move_and_close);
    check_run(argc, argv, "requests_close_with_their_callbacks", requests_close_with_their_callbacks);
    check_run(argc, argv, "requests_close_while_others_drive", requests_close_while_others_drive);
    check_run(argc, argv, "errors_carry_status_and_text", errors_carry_status_and_text);
    check_run(argc, argv, "options_are_born_unset", options_are_born_unset);
    check_run(argc, argv, "embeds_as_c", embeds_as_c);
    check_run(argc, argv, "finds_as_c", finds_as_c);
    check_run(argc, argv, "models_tell_about_themselves", models_tell_about_themselves);
    check_run(argc, argv, "tokenizes", tokenizes);
    check_run(argc, argv, "tokens_are_a_range", tokens_are_a_range);
    check_run(argc, argv, "waiting_ends_with_answers", waiting_ends_with_answers);
    check_run(argc, argv, "callbacks_may_throw", callbacks_may_throw);
    returning_cases(argc, argv);
    expected_cases(argc, argv);
    return check_done();
}
