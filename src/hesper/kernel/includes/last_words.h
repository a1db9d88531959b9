/* What a process that dies of a fatal signal still has to write; async-signal-safe. */
#ifndef HESPER_LAST_WORDS_H
#define HESPER_LAST_WORDS_H

extern void (*hesper_say_last_words)(void *data);
extern void *hesper_last_words_data;

static inline void hesper_last_words(void)
{
    void (*say)(void *) = __atomic_exchange_n(&hesper_say_last_words, (void (*)(void *))0,
                                              __ATOMIC_ACQ_REL);
    if (say)
        say(hesper_last_words_data);
}

/* Only one thing can be said. */
static inline void hesper_have_last_words(void (*say)(void *), void *data)
{
    hesper_last_words_data = data;
    __atomic_store_n(&hesper_say_last_words, say, __ATOMIC_RELEASE);
}

static inline void hesper_forget_last_words(const void *data)
{
    if (hesper_last_words_data == data)
        __atomic_store_n(&hesper_say_last_words, (void (*)(void *))0, __ATOMIC_RELEASE);
}

#endif
