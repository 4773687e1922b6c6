/* The C++ headers without exceptions, as they are where the compiler has none (this file is compiled so) or TFINFER_EXPECTED is defined:
 * calls return a value or an error, a loop over tokens ends and tells why. */
#include <tfinfer/tfinfer.hpp>

#include "check.h"
extern "C" {
#include "tiny_decoder.h"
#include "tiny_model.h"
}

void returning_cases(int argc, char **argv);

namespace
{

void failures_are_values()
{
    const tfinfer::expected<tfinfer::model> none = tfinfer::model::open("nowhere");
    CHECK(!none);
    CHECK_STATUS(none.status(), TF_STATUS_NOT_FOUND);
    CHECK(strstr(none.error().what(), "TF_STATUS_NOT_FOUND") && strstr(none.error().what(), "nowhere"));

    auto m = tfinfer::model::open(tiny_model_path(TINY_BASE));
    CHECK(m && m->info()->width == TINY_WIDTH);
    auto s = tfinfer::session::open(*m);
    CHECK(s);
    const auto v = s->embed({"the cat", "a"});
    CHECK(v && v->size() == 2);
    CHECK_STATUS(v.status(), TF_STATUS_OK);
    CHECK_STATUS(s->classify("x").status(), TF_STATUS_UNSUPPORTED);
    float small[1];
    const tfinfer::expected<void> refused = s->embed("a", small, 1);
    CHECK(!refused && strstr(refused.error().what(), "no room"));
    CHECK_STATUS(tfinfer::session::open(tfinfer::model()).status(), TF_STATUS_INVALID);
    const auto stopped = s->embed(tfinfer::input("a").progress([](std::int64_t, std::int64_t) { return false; }));
    CHECK_STATUS(stopped.status(), TF_STATUS_CANCELLED);

    tfinfer::session taken = *std::move(s);
    CHECK(taken && taken.embed("a"));
    const auto t = m->tokenizer();
    CHECK(t && t->id("[SEP]") && *t->id("[SEP]") == TINY_SEP && *t->id("no such") == std::nullopt);
    const auto e = t->encode("the cat");
    CHECK(e && *t->decode(e->ids()) == "[CLS] the cat [SEP]");
}

void loops_tell_why_they_end()
{
    const auto m = tfinfer::model::open(tiny_decoder_path(TINY_GPT2));
    auto s = tfinfer::session::open(*m);
    tfinfer::generate_options o;
    std::string text;
    o.max_new_tokens = o.min_new_tokens = 5; /* the end is as likely as any token */

    auto g = s->generate("abc", o);
    CHECK(g);
    for (const tfinfer::token &t : *g) text += t.text;
    CHECK_STATUS(g->status(), TF_STATUS_END);
    CHECK(*g->text() == text && g->result()->ids.size() == 5);
    std::string again; /* what is in an expected without a name lives as long as the loop */
    for (const tfinfer::token &t : *s->generate("abc", o)) again += t.text;
    CHECK(again == text);

    int n = 0;
    auto ended = s->generate("abc", o, [&](auto, auto, auto) { return ++n < 3; });
    int seen = 0;
    for (const tfinfer::token &t : *ended) seen += t.id >= 0;
    CHECK(seen < 3);
    CHECK_STATUS(ended->status(), TF_STATUS_CANCELLED);
    tfinfer::token t;
    CHECK_STATUS(tfinfer::request().next(t).status(), TF_STATUS_INVALID);
    auto waiting = s->generate("abc", o);
    CHECK_INT(*waiting->next(t, 0), TF_STATUS_TIMEOUT);
}

} // namespace

void returning_cases(int argc, char **argv)
{
    check_run(argc, argv, "failures_are_values", failures_are_values);
    check_run(argc, argv, "loops_tell_why_they_end", loops_tell_why_they_end);
}
