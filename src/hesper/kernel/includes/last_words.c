#include "last_words.h"

void (*hesper_say_last_words)(void *data);
void *hesper_last_words_data;
