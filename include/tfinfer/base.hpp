/**
 * @file base.hpp
 * What the C++ headers share: errors, views of arrays and texts, handles that close themselves. Include tfinfer.hpp, which tells how it
 * is used, or tokenizer.hpp alone.
 */
#ifndef TFINFER_BASE_HPP
#define TFINFER_BASE_HPP

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <tfinfer/base.h>

/* A name space for each form, so that files compiled in any of them can be linked together: what is inline differs. */
#ifndef __cpp_exceptions
#define TFINFER_FAILURES without_exceptions
#ifndef TFINFER_EXPECTED
#define TFINFER_EXPECTED 1
#endif
#elif defined(TFINFER_EXPECTED)
#define TFINFER_FAILURES returning
#else
#define TFINFER_FAILURES throwing
#endif

namespace tfinfer
{
inline namespace TFINFER_FAILURES
{

/** The library's version at run time. */
inline const char *version() noexcept
{
    return tf_version();
}

/* --------------------------------------------------------------- errors ---- */

/** Why a call failed: what() is the status's name and line of text, then the sentence of tf_last_error(). */
class error : public std::runtime_error
{
  public:
    error(tf_status status, const std::string &detail)
        : std::runtime_error(tf_status_string(status) + (": " + detail)), status_(status)
    {
    }
    tf_status status() const noexcept { return status_; }

  private:
    tf_status status_;
};

namespace detail
{
using failure = error; /* inside expected, error is a function */
}

/** A value, or the error that there is in its place. */
template <class T> class [[nodiscard]] expected
{
  public:
    expected(T value) : held_(std::in_place_index<0>, std::move(value)) {}
    expected(detail::failure failure) : held_(std::in_place_index<1>, std::move(failure)) {}
    explicit operator bool() const noexcept { return held_.index() == 0; }
    /** The value; there must be one, for * and ->. */
    T &operator*() &noexcept { return *std::get_if<0>(&held_); }
    const T &operator*() const &noexcept { return *std::get_if<0>(&held_); }
    /** Of what has no name, the value itself: for (const auto &t : *s.generate("...")). */
    T operator*() && { return std::move(*std::get_if<0>(&held_)); }
    T *operator->() noexcept { return std::get_if<0>(&held_); }
    const T *operator->() const noexcept { return std::get_if<0>(&held_); }
    /** Why there is no value. */
    const detail::failure &error() const noexcept { return *std::get_if<1>(&held_); }
    tf_status status() const noexcept { return *this ? TF_STATUS_OK : error().status(); }

  private:
    std::variant<T, detail::failure> held_;
};

template <> class [[nodiscard]] expected<void>
{
  public:
    expected() = default;
    expected(detail::failure failure) : failure_(std::move(failure)) {}
    explicit operator bool() const noexcept { return !failure_; }
    const detail::failure &error() const noexcept { return *failure_; }
    tf_status status() const noexcept { return failure_ ? failure_->status() : TF_STATUS_OK; }

  private:
    std::optional<detail::failure> failure_;
};

/** What calls return: T itself where failures are thrown. */
#ifdef TFINFER_EXPECTED
template <class T> using outcome = expected<T>;
#else
template <class T> using outcome = T;
#endif

/* ---------------------------------------------------------------- views ---- */

/** Some T's in a row that belong to somebody else. Made from anything with data() and size(), or, as an argument of a call, from
 *  {1, 2, 3}; std::span takes it. */
template <class T> class span
{
  public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;

    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <std::size_t N> constexpr span(T (&array)[N]) noexcept : data_(array), size_(N) {}
    template <class U = T, class = std::enable_if_t<std::is_const_v<U>>>
    constexpr span(std::initializer_list<value_type> list) noexcept : span(list.begin(), list.size())
    {
    }
    template <class C, class = std::enable_if_t<
                           std::is_convertible_v<std::remove_pointer_t<decltype(std::declval<C &>().data())> (*)[], T (*)[]>>>
    constexpr span(C &&c) noexcept : data_(c.data()), size_(c.size())
    {
    }
    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/** Point a list of an options struct at `values`, which must live until the call: set_list(o.eos_ids, o.eos_count, ids). */
template <class T, class N, class Values> void set_list(const T *&list, N &count, const Values &values)
{
    const span<const T> view(values);
    list = view.data();
    count = static_cast<N>(view.size());
}

namespace detail
{
inline std::int64_t signed_size(std::size_t n) noexcept
{
    return static_cast<std::int64_t>(n);
}

/** Elements at p; nothing where C gives NULL or a negative count. */
template <class T, class N> span<T> view(T *p, N n) noexcept
{
    return {p, p && n > 0 ? static_cast<std::size_t>(n) : 0};
}

inline std::string_view text_view(const char *p, std::int64_t n) noexcept
{
    return {p ? p : "", p && n > 0 ? static_cast<std::size_t>(n) : 0};
}

template <class T> constexpr bool is_text = std::is_convertible_v<const T &, std::string_view>;

/** A range of texts that outlive the step that names them: it has them, or gives views. */
template <class R, class = void> constexpr bool is_texts = false;
template <class R>
constexpr bool is_texts<R, std::void_t<decltype(*std::begin(std::declval<const R &>()))>> = [] {
    using element = decltype(*std::begin(std::declval<const R &>()));
    return is_text<std::decay_t<element>> && !is_text<R> &&
           (std::is_lvalue_reference_v<element> || std::is_trivially_copyable_v<std::decay_t<element>>);
}();

/** How a call went: its status, and a sentence if the failure was found on this side of C. */
struct called {
    called(tf_status s) noexcept : status(s) {}
    called(tf_status s, const char *text) noexcept : status(s), sentence(text) {}
    tf_status status;
    const char *sentence = nullptr;
};

/** The end of every call: what `make` makes, or the failure, thrown or returned. */
template <class Make> auto give(called call, Make make) -> outcome<decltype(make())>
{
    if (call.status < 0) {
        error why(call.status, call.sentence ? call.sentence : tf_last_error());
#ifdef TFINFER_EXPECTED
        return why;
#else
        throw why;
#endif
    }
#ifdef TFINFER_EXPECTED
    if constexpr (std::is_void_v<decltype(make())>) return make(), outcome<void>();
    else return make();
#else
    return make();
#endif
}

inline outcome<void> give(called call)
{
    return give(call, [] {});
}

/** END and TIMEOUT are answers. */
inline outcome<tf_status> give_status(tf_status status)
{
    return give(status == TF_STATUS_END || status == TF_STATUS_TIMEOUT ? TF_STATUS_OK : status, [&] { return status; });
}

/** Text of a call that says how much room it needs: fill(char *, capacity, &size). */
template <class Fill> outcome<std::string> give_text(std::size_t guess, Fill fill)
{
    std::string text(guess, '\0');
    std::int64_t size = 0;
    tf_status status = fill(text.data(), signed_size(text.size()), &size);
    if (status == TF_STATUS_TOO_SMALL) {
        text.resize(static_cast<std::size_t>(size));
        status = fill(text.data(), size, &size);
    }
    return give(status, [&] {
        text.resize(static_cast<std::size_t>(size));
        return std::move(text);
    });
}

/** A function that C calls back. No exception may pass through C, so one that leaves it is kept, and ends the call. */
template <class... A> class callback
{
  public:
    explicit callback(std::function<bool(A...)> f) : f_(std::move(f)) {}
    static std::int32_t call(void *user, A... a) noexcept { return static_cast<callback *>(user)->run(a...); }
    explicit operator bool() const noexcept { return static_cast<bool>(f_); }
    void rethrow()
    {
        if (thrown_) std::rethrow_exception(std::exchange(thrown_, nullptr));
    }

  private:
    std::int32_t run(A... a) noexcept
    {
#ifdef __cpp_exceptions
        try {
            return f_(a...) ? 0 : 1;
        } catch (...) {
            thrown_ = std::current_exception();
            return 1;
        }
#else
        return f_(a...) ? 0 : 1;
#endif
    }
    std::function<bool(A...)> f_;
    std::exception_ptr thrown_;
};

using progress_callback = callback<std::int64_t, std::int64_t>;
} // namespace detail

/** Owns a C handle and closes it with its own function, unless it is lent; movable only. */
template <class C, void (*Close)(C *)> class handle
{
  public:
    handle() noexcept = default;
    /** Takes over a handle that C code opened. */
    explicit handle(C *c) noexcept : c_(c) {}
    /** The C handle, for calls of the C headers; NULL if empty. */
    C *c() const noexcept { return c_.get(); }
    explicit operator bool() const noexcept { return static_cast<bool>(c_); }
    /** Close now; the second time there is nothing to close. */
    void close() noexcept { c_.reset(); }
    /** Give the C handle away: the caller closes it. */
    C *release() noexcept { return c_.release(); }

  protected:
    struct closer {
        bool lent = false;
        void operator()(C *c) const noexcept
        {
            if (!lent) Close(c);
        }
    };
    handle(C *c, closer how) noexcept : c_(c, how) {}

  private:
    std::unique_ptr<C, closer> c_;
};

/** Views of one or more texts: a string, {"a", "b"}, or any range of strings. */
class texts
{
  public:
    texts() = default;
    texts(std::initializer_list<std::string_view> list)
    {
        for (const std::string_view text : list) add(text);
    }
    template <class T, std::enable_if_t<detail::is_text<T> || detail::is_texts<T>, int> = 0> texts(const T &from)
    {
        if constexpr (detail::is_text<T>) add(from);
        else
            for (const auto &text : from) add(text);
    }
    const tf_text *data() const noexcept { return items_.data(); }
    std::size_t size() const noexcept { return items_.size(); }

  private:
    void add(std::string_view text) { items_.push_back({text.data(), detail::signed_size(text.size())}); }
    std::vector<tf_text> items_;
};

} // namespace TFINFER_FAILURES
} // namespace tfinfer
#endif
