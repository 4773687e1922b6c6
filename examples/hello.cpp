// hello MODEL PROMPT: continue a text with a model that generates, such as examples/models/gpt2-prose, and print it as it grows.
#include <iostream>

#include <tfinfer/tfinfer.hpp>

int main(int argc, char **argv)
{
    if (argc != 3) {
        std::cerr << "usage: hello MODEL PROMPT\n";
        return 2;
    }
    try {
        // The weights, which any number of threads may share; they stay as long as a session needs them.
        const tfinfer::model model = tfinfer::model::open(argv[1]);
        // The working memory: requests of one session advance together.
        tfinfer::session session = tfinfer::session::open(model);

        // Options are unset at birth: what is not set here comes from the checkpoint.
        tfinfer::generate_options options;
        options.max_new_tokens = 40;
        options.seed = 3;

        // A request is a range of tokens. A token's text is whole characters, maybe none.
        std::cout << argv[2];
        for (const tfinfer::token &token : session.generate(argv[2], options)) std::cout << token.text << std::flush;
        std::cout << '\n';
    } catch (const tfinfer::error &e) { // says which argument, file or key was wrong
        std::cerr << e.what() << '\n';
        return 1;
    }
    return 0;
}
