/**
 * @file tokenizer.hpp
 * tokenizer.h for C++: text to ids and back. tfinfer.hpp tells how these headers are used.
 *
 * @code
 * const auto tokenizer = tfinfer::tokenizer::open("gpt2-prose");
 * const auto encoding = tokenizer.encode({"Hello, wordpiece!", "Two texts."});
 * for (const std::int32_t id : encoding[0].ids) std::cout << id << ' ';
 * std::cout << tokenizer.decode(encoding[1].ids);
 * @endcode
 */
#ifndef TFINFER_TOKENIZER_HPP
#define TFINFER_TOKENIZER_HPP

#include <tfinfer/base.hpp>
#include <tfinfer/tokenizer.h>

namespace tfinfer
{
inline namespace TFINFER_FAILURES
{

/** The option structs of C, every field unset at birth. @{ */
struct source : tf_source {
    source() noexcept : tf_source() { tf_source_init(this); }
};
struct tokenizer_options : tf_tokenizer_options {
    tokenizer_options() noexcept : tf_tokenizer_options() { tf_tokenizer_options_init(this); }
};
struct tokenize_options : tf_tokenize_options {
    tokenize_options() noexcept : tf_tokenize_options() { tf_tokenize_options_init(this); }
};
struct encoding_arrays : tf_encoding_arrays {
    encoding_arrays() noexcept : tf_encoding_arrays() { tf_encoding_arrays_init(this); }
};
struct decode_options : tf_decode_options {
    decode_options() noexcept : tf_decode_options() { tf_decode_options_init(this); }
};
/** @} */

/** One row of an encoding; see tf_encoding_data. */
struct encoded {
    std::int64_t text; /**< which text of the call */
    span<const std::int32_t> ids, type_ids, sequence, word;
    span<const std::int64_t> byte_begin, byte_end, char_begin, char_end;
};

/** How much encoding::write() wrote, or would have written if it fitted. */
struct extent {
    std::int64_t rows, tokens;
    bool fits;
};

/** Texts as ids. Keeps its buffers when it is encoded into again; views end then. */
class encoding : public handle<tf_encoding, tf_encoding_close>
{
  public:
    using handle::handle;

    tf_encoding_data data() const noexcept
    {
        tf_encoding_data d = {};
        tf_encoding_data_init(&d);
        tf_encoding_get(c(), &d);
        return d;
    }
    /** Rows: one a text, more with overflow. */
    std::size_t size() const noexcept { return static_cast<std::size_t>(data().rows); }
    /** Ids of all rows, one behind the other. */
    span<const std::int32_t> ids() const noexcept
    {
        const tf_encoding_data d = data();
        return detail::view(d.ids, d.tokens);
    }
    /** Copy into arrays of the caller's, packed or padded. Too little room is no error: nothing is written then. */
    outcome<extent> write(const encoding_arrays &arrays) const
    {
        extent e = {};
        const tf_status status = tf_encoding_write(c(), &arrays, &e.rows, &e.tokens);
        e.fits = status == TF_STATUS_OK;
        return detail::give(status == TF_STATUS_TOO_SMALL ? TF_STATUS_OK : status, [&] { return e; });
    }
    encoded operator[](std::size_t row) const noexcept
    {
        const tf_encoding_data d = data();
        const std::int64_t begin = d.row_start[row], n = d.row_start[row + 1] - begin;
        const auto part = [&](auto *all) { return detail::view(all + begin, n); };
        return {d.row_text[row],    part(d.ids),      part(d.type_ids),   part(d.sequence), part(d.word),
                part(d.byte_begin), part(d.byte_end), part(d.char_begin), part(d.char_end)};
    }
};

class tokenizer : public handle<tf_tokenizer, tf_tokenizer_close>
{
  public:
    using handle::handle;

    static outcome<tokenizer> open(const std::string &path, const tokenizer_options &options = {})
    {
        tf_tokenizer *t = nullptr;
        const tf_status status = tf_tokenizer_open(path.c_str(), &options, &t);
        return detail::give(status, [&] { return tokenizer(t); });
    }
    /** From files that the program hands over, or the one named: tf_tokenizer_open_source(). */
    static outcome<tokenizer> open(const tf_source &source, const char *name = nullptr, const tokenizer_options &options = {})
    {
        tf_tokenizer *t = nullptr;
        const tf_status status = tf_tokenizer_open_source(&source, name, &options, &t);
        return detail::give(status, [&] { return tokenizer(t); });
    }
    /** A tokenizer that somebody else closes. */
    static tokenizer lent(const tf_tokenizer *t) noexcept
    {
        return {const_cast<tf_tokenizer *>(t), closer{true}}; /* no call on it changes it */
    }
    outcome<tf_tokenizer_info> info() const
    {
        tf_tokenizer_info i = {};
        tf_tokenizer_info_init(&i);
        return detail::give(tf_tokenizer_get_info(c(), &i), [&] { return i; });
    }
    /** The spelling of an id; belongs to the tokenizer. */
    outcome<std::string_view> token(std::int32_t id) const
    {
        const char *text = "";
        return detail::give(tf_tokenizer_token(c(), id, &text), [&] { return std::string_view(text); });
    }
    /** The id of a spelling, if there is one. */
    outcome<std::optional<std::int32_t>> id(std::string_view token) const
    {
        std::int32_t id = -1;
        const tf_status status = tf_tokenizer_id(c(), {token.data(), detail::signed_size(token.size())}, &id);
        return detail::give(status == TF_STATUS_NOT_FOUND ? TF_STATUS_OK : status,
                            [&] { return status == TF_STATUS_OK ? std::optional<std::int32_t>(id) : std::nullopt; });
    }
    outcome<encoding> encode(const texts &all, const tokenize_options &options = {}) const
    {
        return encode_new(all, nullptr, options);
    }
    outcome<encoding> encode_pairs(const texts &first, const texts &second, const tokenize_options &options = {}) const
    {
        return encode_new(first, &second, options);
    }
    /** Encode into `out`, in place of what it held. */
    outcome<void> encode(const texts &all, encoding &out, const tokenize_options &options = {}) const
    {
        return detail::give(encode_into(all, nullptr, options, out));
    }
    outcome<void> encode_pairs(const texts &first, const texts &second, encoding &out,
                               const tokenize_options &options = {}) const
    {
        return detail::give(encode_into(first, &second, options, out));
    }
    outcome<std::string> decode(span<const std::int32_t> ids, const decode_options &options = {}) const
    {
        return detail::give_text(ids.size() * 8, [&](char *text, std::int64_t capacity, std::int64_t *size) {
            return tf_tokenizer_decode(c(), ids.data(), detail::signed_size(ids.size()), &options, text, capacity, size);
        });
    }

  private:
    tokenizer(tf_tokenizer *t, closer how) noexcept : handle(t, how) {}
    detail::called encode_into(const texts &first, const texts *second, const tokenize_options &options, encoding &out) const
    {
        if (second && second->size() != first.size()) return {TF_STATUS_INVALID, "pairs: there are more texts of one kind"};
        if (!out) {
            tf_encoding *e = nullptr;
            if (const tf_status status = tf_encoding_open(c(), &e); status < 0) return status;
            out = encoding(e);
        }
        return tf_tokenizer_encode(c(), first.data(), second ? second->data() : nullptr, detail::signed_size(first.size()),
                                   &options, out.c());
    }
    outcome<encoding> encode_new(const texts &first, const texts *second, const tokenize_options &options) const
    {
        encoding out;
        const detail::called call = encode_into(first, second, options, out);
        return detail::give(call, [&] { return std::move(out); });
    }
};

/** Ids to text, one after the other (tf_stream). Pieces belong to it until its next call; the tokenizer must stay open. */
class text_stream : public handle<tf_stream, tf_stream_close>
{
  public:
    using handle::handle;

    static outcome<text_stream> open(const tokenizer &t, const decode_options &options = {})
    {
        tf_stream *s = nullptr;
        const tf_status status = tf_stream_open(t.c(), &options, &s);
        return detail::give(status, [&] { return text_stream(s); });
    }
    /** What is certain of the text with this id: whole characters, maybe none. */
    outcome<std::string_view> push(std::int32_t id)
    {
        const char *text = nullptr;
        std::int64_t size = 0;
        const tf_status status = tf_stream_push(c(), id, &text, &size);
        return detail::give(status, [&] { return detail::text_view(text, size); });
    }
    /** The rest of the text. */
    outcome<std::string_view> finish()
    {
        const char *text = nullptr;
        std::int64_t size = 0;
        const tf_status status = tf_stream_finish(c(), &text, &size);
        return detail::give(status, [&] { return detail::text_view(text, size); });
    }
    void reset() noexcept { tf_stream_reset(c()); }
};

} // namespace TFINFER_FAILURES
} // namespace tfinfer
#endif
