/* The cases of hpp_returning.cpp where TFINFER_EXPECTED asks for them of a compiler that has exceptions; and then a callback may throw, also
 * in a program whose other files cannot catch. */
#define TFINFER_EXPECTED
#define returning_cases returning_cases_again
#include "hpp_returning.cpp"

namespace
{

void callbacks_throw_all_the_same()
{
    const auto m = tfinfer::model::open(tiny_model_path(TINY_BASE));
    auto s = tfinfer::session::open(*m);
    bool caught = false;
    try {
        (void)s->embed(tfinfer::input("a").progress([](std::int64_t, std::int64_t) -> bool { throw 1; }));
    } catch (int) {
        caught = true;
    }
    CHECK(caught && s->embed("a")); /* the session goes on */
}

} // namespace

void expected_cases(int argc, char **argv);

void expected_cases(int argc, char **argv)
{
    returning_cases_again(argc, argv);
    check_run(argc, argv, "callbacks_throw_all_the_same", callbacks_throw_all_the_same);
}
