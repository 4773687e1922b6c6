/**
 * @file tfinfer.hpp
 * libtfinfer for C++17 and later: the C headers' calls with handles that close themselves, text and array views, exceptions, and
 * generated tokens as a range. All of it is in headers; a program links libtfinfer and nothing else.
 *
 * @code
 * #include <iostream>
 * #include <tfinfer/tfinfer.hpp>
 *
 * int main(int argc, char **argv)
 * {
 *     const auto model = tfinfer::model::open(argc > 1 ? argv[1] : "gpt2");
 *     auto session = tfinfer::session::open(model);
 *     for (const auto &token : session.generate("Once upon a time")) std::cout << token.text << std::flush;
 * }
 * @endcode
 *
 * Names are those of C without "tf_": tf_embed(s, ...) is s.embed(...). Option structs are the C ones, born with every field unset:
 * `tfinfer::generate_options o; o.num_beams = 4;`. What a call means, its ranges and its statuses stand in the C headers.
 *
 * Errors: a call that fails throws tfinfer::error, which has the status and the library's sentence. Where TFINFER_EXPECTED is defined
 * before this header, or the compiler has exceptions switched off, the same calls return tfinfer::expected<T> and nothing is thrown.
 * Files of all these kinds may meet in one program. END and TIMEOUT are no errors: calls that can end so return the status.
 * Ownership: handles are movable, not copyable; one that was moved from, closed or made by default is empty, and a call on it is
 * TF_STATUS_INVALID. Views (span, std::string_view) in what is returned belong to the handle, as in C.
 * Inputs keep views of the caller's texts and arrays, like std::string_view: do not keep an input made from a temporary.
 * Threads: as in C. Functions given as progress or logits may throw: the call, or the request's next(), ends and throws the same. The C
 * functions of option structs and sources (log, allocator, files) must not.
 */
#ifndef TFINFER_TFINFER_HPP
#define TFINFER_TFINFER_HPP

#include <tfinfer/base.hpp>
#include <tfinfer/generate.h>
#include <tfinfer/tfinfer.h>
#include <tfinfer/tokenizer.hpp>

namespace tfinfer
{
inline namespace TFINFER_FAILURES
{

namespace detail
{
struct logits_callback : callback<std::int32_t, span<const std::int32_t>, span<float>> {
    using callback::callback;
    static std::int32_t call_c(void *user, std::int32_t sequence, const std::int32_t *ids, std::int64_t count, float *logits,
                               std::int64_t vocab) noexcept
    {
        return call(static_cast<callback *>(static_cast<logits_callback *>(user)), sequence, view(ids, count),
                    view(logits, vocab));
    }
};
} // namespace detail

/* -------------------------------------------------------------- options ---- */

/** The option structs of C, every field unset at birth. @{ */
struct model_options : tf_model_options {
    model_options() noexcept : tf_model_options() { tf_model_options_init(this); }
};
struct session_options : tf_session_options {
    session_options() noexcept : tf_session_options() { tf_session_options_init(this); }
};
struct embed_options : tf_embed_options {
    embed_options() noexcept : tf_embed_options() { tf_embed_options_init(this); }
};
struct classify_options : tf_classify_options {
    classify_options() noexcept : tf_classify_options() { tf_classify_options_init(this); }
};
struct token_classify_options : tf_token_classify_options {
    token_classify_options() noexcept : tf_token_classify_options() { tf_token_classify_options_init(this); }
};
struct answer_options : tf_answer_options {
    answer_options() noexcept : tf_answer_options() { tf_answer_options_init(this); }
};
struct fill_mask_options : tf_fill_mask_options {
    fill_mask_options() noexcept : tf_fill_mask_options() { tf_fill_mask_options_init(this); }
};
struct generate_options : tf_generate_options {
    generate_options() noexcept : tf_generate_options() { tf_generate_options_init(this); }
};
struct encode_output : tf_encode_output {
    encode_output() noexcept : tf_encode_output() { tf_encode_output_init(this); }
};
/** @} */

/* --------------------------------------------------------------- input ---- */

/** Called while a call works; false ends it with TF_STATUS_CANCELLED. */
using progress_function = std::function<bool(std::int64_t done, std::int64_t total)>;

/** What a task or request runs on (tf_input): texts, pairs of texts, ids, embeddings. */
class input
{
  public:
    input(std::initializer_list<std::string_view> list) : texts_(list) {}
    template <class T, std::enable_if_t<detail::is_text<T> || detail::is_texts<T>, int> = 0> input(const T &from) : texts_(from)
    {
    }
    input(texts all) : texts_(std::move(all)) {}
    /** Texts with a second text each; for answer(), questions with their contexts. */
    static input pairs(texts first, texts second)
    {
        input in(std::move(first));
        in.second_ = std::move(second);
        in.paired_ = true;
        return in;
    }
    /** Sequences of ids, packed one behind the other; without `lens` all of it is one. */
    static input ids(span<const std::int32_t> ids, span<const std::int32_t> lens = {})
    {
        input in{texts()};
        in.packed_ = true;
        in.ids_ = ids;
        in.lens_ = lens;
        in.only_ = static_cast<std::int32_t>(ids.size());
        return in;
    }
    /** Sequences of `lens` tokens whose embeddings are `rows`, [sum(lens), tf_model_info.input_width]. */
    static input embeddings(span<const float> rows, span<const std::int32_t> lens)
    {
        input in = ids({}, lens);
        in.rows_ = rows;
        return in;
    }
    /** With ids: embeddings for the tokens whose id is -1. */
    input &with_embeddings(span<const float> rows)
    {
        rows_ = rows;
        return *this;
    }
    input &with_type_ids(span<const std::int32_t> types)
    {
        types_ = types;
        return *this;
    }
    /** Text that is not UTF-8 reads as U+FFFD. */
    input &replace_invalid(bool yes = true)
    {
        replace_invalid_ = yes;
        return *this;
    }
    /** Watch the tasks that run on this; called on their thread. */
    input &progress(progress_function watch)
    {
        progress_ = std::move(watch);
        return *this;
    }
    /** Texts or sequences. */
    std::size_t size() const noexcept { return !packed_ ? texts_.size() : lens_.data() ? lens_.size() : 1; }

    /** Hand this to C: call(const tf_input *). Checks what only the sizes of the views can tell; `row_floats` is the model's
     *  input_width. Throws what the progress function threw. */
    template <class Call> detail::called run(std::int32_t row_floats, Call call) const
    {
        if (paired_ && second_.size() != texts_.size()) return {TF_STATUS_INVALID, "pairs: there are more texts of one kind"};
        tf_input in;
        tf_input_init(&in);
        in.count = detail::signed_size(size());
        in.replace_invalid = replace_invalid_ ? 1 : TF_UNSET;
        if (packed_) {
            in.ids = ids_.data() || rows_.data() ? ids_.data() : &only_; /* no ids at all are ids, too */
            in.embeddings = rows_.data();
            in.type_ids = types_.data();
            in.lens = lens_.data() ? lens_.data() : &only_;
            if (const char *const wrong = sizes_wrong(in, row_floats)) return {TF_STATUS_INVALID, wrong};
        } else {
            in.texts = texts_.data();
            in.pairs = paired_ ? second_.data() : nullptr;
        }
        if (!progress_) return call(&in);
        detail::progress_callback watch(progress_);
        in.progress = detail::progress_callback::call;
        in.progress_user = &watch;
        const tf_status status = call(&in);
        if (status == TF_STATUS_CANCELLED) watch.rethrow();
        return status;
    }

  private:
    const char *sizes_wrong(const tf_input &in, std::int32_t row_floats) const noexcept
    {
        std::size_t tokens = 0;
        for (std::int64_t i = 0; i < in.count; i++)
            if (in.lens[i] > 0) tokens += static_cast<std::size_t>(in.lens[i]);
        if (ids_.data() && ids_.size() != tokens) return "ids: their number is not the sum of lens";
        if (types_.data() && types_.size() != tokens) return "type_ids: their number is not the sum of lens";
        if (rows_.data() && rows_.size() != tokens * static_cast<std::size_t>(row_floats))
            return "embeddings: their number is not the sum of lens times the model's input_width";
        return nullptr;
    }
    texts texts_, second_;
    span<const std::int32_t> ids_, types_, lens_;
    span<const float> rows_;
    std::int32_t only_ = 0;
    bool paired_ = false, packed_ = false, replace_invalid_ = false;
    progress_function progress_;
};

/* ---------------------------------------------------------------- model ---- */

class model : public handle<tf_model, tf_model_close>
{
  public:
    using handle::handle;

    /** Open a checkpoint's directory. `progress` counts bytes, in place of options.progress. */
    static outcome<model> open(const std::string &path, const model_options &options = {}, progress_function progress = {})
    {
        return open_by([&](const tf_model_options *o, tf_model **m) { return tf_model_open(path.c_str(), o, m); }, options,
                       std::move(progress));
    }
    /** Open files and tensors that the program hands over: tf_model_open_source(). Its callbacks must not throw. */
    static outcome<model> open(const tf_source &source, const model_options &options = {}, progress_function progress = {})
    {
        return open_by([&](const tf_model_options *o, tf_model **m) { return tf_model_open_source(&source, o, m); }, options,
                       std::move(progress));
    }
    /** The bytes that model and session would take. */
    static outcome<tf_plan> plan(const std::string &path, const model_options &options = {},
                                 const session_options &session = {})
    {
        tf_plan p = {};
        tf_plan_init(&p);
        return detail::give(tf_model_plan(path.c_str(), &options, &session, &p), [&] { return p; });
    }
    /** Strings in it belong to the model. */
    outcome<tf_model_info> info() const
    {
        tf_model_info i = {};
        tf_model_info_init(&i);
        return detail::give(tf_model_get_info(c(), &i), [&] { return i; });
    }
    /** The directory's tokenizer, lent: valid while the model is open. */
    outcome<class tokenizer> tokenizer() const
    {
        const tf_tokenizer *t = nullptr;
        return detail::give(tf_model_tokenizer(c(), &t), [&] { return tokenizer::lent(t); });
    }
    outcome<std::string> graph(tf_graph_format format = TF_GRAPH_TEXT) const
    {
        return detail::give_text(4096, [&](char *text, std::int64_t capacity, std::int64_t *size) {
            return tf_model_graph(c(), format, text, capacity, size);
        });
    }

  private:
    template <class Call> static outcome<model> open_by(Call call, tf_model_options o, progress_function progress)
    {
        detail::progress_callback watch(std::move(progress));
        tf_model *m = nullptr;
        if (watch) {
            o.progress = detail::progress_callback::call;
            o.progress_user = &watch;
        }
        const tf_status status = call(&o, &m);
        if (status == TF_STATUS_CANCELLED) watch.rethrow();
        return detail::give(status, [&] { return model(m); });
    }
};

/* ----------------------------------------------------------- generation ---- */

/** A new token of a request; `text` belongs to the request until its next call. */
struct token {
    std::int32_t sequence = 0;
    std::int32_t id = -1; /**< -1: no token, the rest of a sequence's text */
    float logprob = 0;
    tf_finish finish = TF_FINISH_NONE;
    std::string_view text;
};

/** A sequence's result; views belong to the request until its next call. See tf_generated. */
struct generated {
    span<const std::int32_t> ids;
    std::string_view text;
    span<const float> logprobs, prompt_logprobs;
    std::int64_t prompt_count;
    double cumulative_logprob;
    float score;
    tf_finish finish;
    std::int64_t stop_begin, stop_index;
    span<const std::int32_t> beams; /**< the beam that each token was drawn from; empty without beams */
};

/** tf_logits_fn; false ends the request with TF_STATUS_CANCELLED. */
using logits_function = std::function<bool(std::int32_t sequence, span<const std::int32_t> ids, span<float> logits)>;

/** One request (tf_generate), and a range, to be gone through once, of the tokens that come out of it; not to be moved meanwhile. */
class request : public handle<tf_generate, tf_generate_close>
{
  public:
    using handle::handle;
    request(request &&) noexcept = default;
    request &operator=(request &&) noexcept = default;
    ~request() { close(); } /* before the callback goes: another thread may be driving */

    /** The next token. @return OK; END: there are no more; TIMEOUT. */
    outcome<tf_status> next(token &out, std::int32_t timeout_ms = -1) { return detail::give_status(take(out, timeout_ms)); }
    /** Wait for the end of the whole request. @return OK or TIMEOUT. */
    outcome<tf_status> wait(std::int32_t timeout_ms = -1)
    {
        return detail::give_status(ended(tf_generate_wait(c(), timeout_ms)));
    }
    outcome<generated> result(std::int32_t sequence = 0)
    {
        tf_generated r = {};
        tf_generated_init(&r);
        return detail::give(tf_generate_result(c(), sequence, &r), [&] {
            return generated{detail::view(r.ids, r.count),
                             detail::text_view(r.text, r.text_bytes),
                             detail::view(r.logprobs, r.count),
                             detail::view(r.prompt_logprobs, r.prompt_count),
                             r.prompt_count,
                             r.cumulative_logprob,
                             r.score,
                             static_cast<tf_finish>(r.finish),
                             r.stop_begin,
                             r.stop_index,
                             detail::view(r.beams, r.beams ? r.count : 0)};
        });
    }
    /** Wait, and give a sequence's text. */
    outcome<std::string> text(std::int32_t sequence = 0)
    {
        tf_generated r = {};
        tf_generated_init(&r);
        tf_status status = ended(tf_generate_wait(c(), -1));
        if (status == TF_STATUS_OK) status = tf_generate_result(c(), sequence, &r);
        return detail::give(status, [&] { return std::string(detail::text_view(r.text, r.text_bytes)); });
    }
    /** A step's logits, options.keep_logits or keep_scores set; out has the vocabulary's size. */
    outcome<void> scores(tf_scores kind, std::int64_t step, std::int32_t sequence, span<float> out) const
    {
        return detail::give(tf_generate_scores(c(), kind, step, sequence, out.data(), detail::signed_size(out.size())));
    }
    /** End it at its next step; from any thread. */
    void cancel() noexcept { tf_generate_cancel(c()); }

    class iterator
    {
      public:
        using iterator_category = std::input_iterator_tag;
        using value_type = token;
        using difference_type = std::ptrdiff_t;
        using pointer = const token *;
        using reference = const token &;

        iterator() noexcept = default;
        const token &operator*() const noexcept { return token_; }
        const token *operator->() const noexcept { return &token_; }
        iterator &operator++()
        {
            if (!request_->advance(token_)) request_ = nullptr;
            return *this;
        }
        void operator++(int) { ++*this; }
        friend bool operator==(const iterator &a, const iterator &b) noexcept { return a.request_ == b.request_; }
        friend bool operator!=(const iterator &a, const iterator &b) noexcept { return a.request_ != b.request_; }

      private:
        friend request;
        explicit iterator(request *r) : request_(r) { ++*this; }
        request *request_ = nullptr;
        token token_;
    };
    iterator begin() { return iterator(this); }
    iterator end() noexcept { return {}; }
    /** How it stands with next() and the range: OK while there is more; END; or why it ended early. For loops that cannot throw. */
    tf_status status() const noexcept { return status_; }

  private:
    friend class session;
    tf_status take(token &out, std::int32_t timeout_ms)
    {
        tf_generated_token t = {};
        tf_generated_token_init(&t);
        status_ = ended(tf_generate_next(c(), timeout_ms, &t));
        if (status_ == TF_STATUS_OK)
            out = {t.sequence, t.id, t.logprob, static_cast<tf_finish>(t.finish), detail::text_view(t.text, t.text_bytes)};
        return status_;
    }
    /* For the range: whether there is a token; what is neither that nor the end is thrown, where that is done. */
    bool advance(token &out)
    {
        static_cast<void>(detail::give_status(take(out, -1)));
        return status_ == TF_STATUS_OK;
    }
    /* What the logits function threw, on whichever thread, is thrown again on the request's own. */
    tf_status ended(tf_status status)
    {
        if (status == TF_STATUS_CANCELLED && logits_) logits_->rethrow();
        return status;
    }
    std::unique_ptr<detail::logits_callback> logits_;
    tf_status status_ = TF_STATUS_OK;
};

/* -------------------------------------------------------------- session ---- */

/** Rows of floats. */
struct matrix {
    std::vector<float> values; /**< row-major */
    std::size_t width = 0;
    std::size_t size() const noexcept { return width ? values.size() / width : 0; }
    span<const float> operator[](std::size_t row) const &noexcept { return {values.data() + row * width, width}; }
    /** Of a matrix without a name, the row itself: for (float x : s.embed("...")[0]). */
    std::vector<float> operator[](std::size_t row) &&
    {
        const span<const float> view = static_cast<const matrix &>(*this)[row];
        return {view.begin(), view.end()};
    }
};

struct classification {
    matrix logits, scores; /**< a row an input, a column a label */
};

/** What was found, for each input; strings in the records belong to the model. */
template <class Record> struct found : std::vector<std::vector<Record>> {
    using std::vector<std::vector<Record>>::vector;
    const std::vector<Record> &operator[](std::size_t in) const &noexcept { return this->data()[in]; }
    /** Of what has no name, the records themselves: for (const auto &e : s.token_classify("...")[0]). */
    std::vector<Record> operator[](std::size_t in) &&noexcept { return std::move(this->data()[in]); }
};

class session : public handle<tf_session, tf_session_close>
{
  public:
    session() noexcept = default;

    static outcome<session> open(const model &m, const session_options &options = {})
    {
        session s;
        const tf_status status = s.open_c(m, options);
        return detail::give(status, [&] { return std::move(s); });
    }
    outcome<tf_session_stats> stats() const
    {
        tf_session_stats st = {};
        tf_session_stats_init(&st);
        return detail::give(tf_session_get_stats(c(), &st), [&] { return st; });
    }
    /** Raw tensors, to the arrays that `out` names. */
    outcome<void> encode(const input &in, const encode_output &out)
    {
        return detail::give(run(in, [&](const tf_input *i) { return tf_encode(c(), i, &out); }));
    }
    /** A vector a text. */
    outcome<matrix> embed(const input &in, const embed_options &options = {})
    {
        matrix m = rows(in, embedding_width_);
        const detail::called call = embed_to(in, m.values, embedding_width_, options);
        return detail::give(call, [&] { return std::move(m); });
    }
    /** The same to an array of the caller; `stride`: floats from one row to the next. */
    outcome<void> embed(const input &in, span<float> out, std::size_t stride, const embed_options &options = {})
    {
        return detail::give(embed_to(in, out, stride, options));
    }
    outcome<classification> classify(const input &in, const classify_options &options = {})
    {
        classification r{rows(in, sequence_logits_), rows(in, sequence_logits_)};
        const detail::called call = run(in, [&](const tf_input *i) {
            return tf_classify(c(), i, &options, r.logits.values.data(), r.scores.values.data());
        });
        return detail::give(call, [&] { return std::move(r); });
    }
    outcome<found<tf_entity>> token_classify(const input &in, const token_classify_options &options = {})
    {
        return find<tf_entity>(in, tf_result_entity,
                               [&](const tf_input *i, tf_result **r) { return tf_token_classify(c(), i, &options, r); });
    }
    /** input::pairs(questions, contexts). */
    outcome<found<tf_span>> answer(const input &in, const answer_options &options = {})
    {
        return find<tf_span>(in, tf_result_span,
                             [&](const tf_input *i, tf_result **r) { return tf_answer(c(), i, &options, r); });
    }
    outcome<found<tf_fill>> fill_mask(const input &in, const fill_mask_options &options = {})
    {
        return find<tf_fill>(in, tf_result_fill,
                             [&](const tf_input *i, tf_result **r) { return tf_fill_mask(c(), i, &options, r); });
    }
    /** Begin a request; `logits`, if given, takes the place of options.logits. */
    outcome<request> generate(const input &prompt, const generate_options &options = {}, logits_function logits = {})
    {
        tf_generate_options o = options;
        tf_generate *g = nullptr;
        std::unique_ptr<detail::logits_callback> callback;
        if (logits) {
            callback = std::make_unique<detail::logits_callback>(std::move(logits));
            o.logits = detail::logits_callback::call_c;
            o.logits_user = callback.get();
        }
        const detail::called call = run(prompt, [&](const tf_input *i) { return tf_generate_open(c(), i, &o, &g); });
        return detail::give(call, [&] {
            request r(g);
            r.logits_ = std::move(callback);
            return r;
        });
    }
    /** A step for all requests, by a thread that holds many. @return OK, END: nothing to do, TIMEOUT. */
    outcome<tf_status> step(std::int32_t timeout_ms = -1) { return detail::give_status(tf_session_step(c(), timeout_ms)); }

  private:
    tf_status open_c(const model &m, const session_options &options)
    {
        tf_model_info info = {};
        tf_session *s = nullptr;
        tf_model_info_init(&info);
        tf_status status = tf_model_get_info(m.c(), &info);
        if (status == TF_STATUS_OK) status = tf_session_open(m.c(), &options, &s);
        static_cast<handle &>(*this) = handle(s);
        embedding_width_ = static_cast<std::size_t>(info.embedding_width);
        sequence_logits_ = static_cast<std::size_t>(info.sequence_logits);
        input_width_ = info.input_width;
        return status;
    }
    template <class Call> detail::called run(const input &in, Call call) { return in.run(input_width_, call); }
    static matrix rows(const input &in, std::size_t width)
    {
        matrix m{{}, width};
        m.values.reserve(1); /* C wants an address for no floats, too */
        m.values.resize(in.size() * width);
        return m;
    }
    detail::called embed_to(const input &in, span<float> out, std::size_t stride, const embed_options &options)
    {
        const std::size_t n = in.size(), width = embedding_width_;
        if (n > 0 && width > 0 && (stride < width || out.size() < width || (out.size() - width) / stride < n - 1))
            return {TF_STATUS_INVALID, "embed: the array has no room for a row of the model's embedding_width a text"};
        return run(in, [&](const tf_input *i) { return tf_embed(c(), i, &options, out.data(), detail::signed_size(stride)); });
    }
    template <class Record, class Call>
    outcome<found<Record>> find(const input &in, tf_status (*get)(const tf_result *, std::int64_t, std::int64_t, Record *),
                                Call call)
    {
        tf_result *result = nullptr;
        detail::called called = run(in, [&](const tf_input *i) { return call(i, &result); });
        const handle<tf_result, tf_result_close> owner(result);
        found<Record> all(in.size());
        for (std::size_t i = 0; i < all.size(); i++) {
            const std::int64_t number = detail::signed_size(i), count = tf_result_count(result, number);
            for (std::int64_t k = 0; k < count && called.status >= 0; k++) {
                Record record = {};
                record.struct_size = sizeof record;
                called = get(result, number, k, &record);
                all.data()[i].push_back(record);
            }
        }
        return detail::give(called, [&] { return std::move(all); });
    }
    std::size_t embedding_width_ = 0, sequence_logits_ = 0;
    std::int32_t input_width_ = 0;
};

} // namespace TFINFER_FAILURES
} // namespace tfinfer
#endif
