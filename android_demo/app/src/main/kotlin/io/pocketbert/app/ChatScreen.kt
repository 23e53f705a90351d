/*
 * Fills the views of layout/chat.xml from the chat's state, and puts what is typed and tapped into the chat.
 *
 * Takes the inflated root and the chat. Only what has changed is touched: a keystroke sets two short texts and a bar.
 */
package io.pocketbert.app

import android.text.Editable
import android.text.TextWatcher
import android.view.View
import android.widget.EditText
import android.widget.ImageButton
import android.widget.ListView
import android.widget.TextView
import io.pocketbert.chat.Chat
import io.pocketbert.chat.ChatState
import io.pocketbert.chat.Draft

class ChatScreen(root: View, private val chat: Chat) {
    private val words = Words(root.context, chat::bot)
    private val status = root.findViewById<TextView>(R.id.status)
    private val notice = root.findViewById<TextView>(R.id.notice)
    private val verdict = root.findViewById<View>(R.id.verdict)
    private val label = root.findViewById<TextView>(R.id.label)
    private val percent = root.findViewById<TextView>(R.id.percent)
    private val shares = root.findViewById<SharesView>(R.id.shares)
    private val input = root.findViewById<EditText>(R.id.input)
    private val send = root.findViewById<ImageButton>(R.id.send)
    private val messages = MessagesAdapter(root.context, words, chat)
    private var typed = "" // what the input field holds
    private var shown: ChatState? = null

    init {
        val list = root.findViewById<ListView>(R.id.messages)
        list.adapter = messages
        send.setOnClickListener {
            chat.send()
            show(chat.state.value)
        }
        root.findViewById<View>(R.id.tune).setOnClickListener { chat.showSheet(true) }
        input.addTextChangedListener(object : TextWatcher {
            override fun beforeTextChanged(text: CharSequence, start: Int, count: Int, after: Int) = Unit
            override fun onTextChanged(text: CharSequence, start: Int, before: Int, count: Int) = Unit
            override fun afterTextChanged(text: Editable) {
                typed = text.toString()
                chat.type(typed)
                show(chat.state.value)
            }
        })
        keepClearOfBars(root, root.findViewById(R.id.bar), list, root.findViewById(R.id.composer), notice)
    }

    fun show(state: ChatState) {
        if (state.draft.text !== typed && state.draft.text != typed) { // restored, or sent
            input.setText(state.draft.text)
            input.setSelection(input.length())
            return // the watcher has shown it
        }
        val before = shown
        shown = state
        val models = before == null || state.models() != before.models()
        if (models || state.draft != before.draft) show(state.draft, state)
        if (models || state.figures !== before.figures) status.text = words.status(state)
        if (models) showNotice(state)
        messages.show(state)
    }

    /** What the screen says about models follows from these. */
    private fun ChatState.models() = listOf(wish, opened, failures, choices, resting)

    private fun show(draft: Draft, state: ChatState) {
        verdict.visibility = if (state.helpless) View.GONE else View.VISIBLE
        send.isEnabled = draft.text.isNotBlank()
        val answer = draft.answer
        val best = answer?.first()
        val labels = state.opened?.labels.orEmpty()
        val color = best?.let { words.color(labels.indexOf(it.label)) } ?: words.soft
        val blank = if (draft.text.isBlank()) words.idle else words.reading
        label.show(if (best == null) blank else words.label(best.label), color)
        percent.show(best?.let { words.percent(it.score) } ?: "", color)
        shares.show(answer, labels, words)
        verdict.contentDescription = if (best == null) blank else words.typedLabel(best)
    }

    /** What is there already costs nothing. */
    private fun TextView.show(words: String, color: Int) {
        if (text.toString() != words) text = words
        if (currentTextColor != color) setTextColor(color)
    }

    private fun showNotice(state: ChatState) {
        val text = words.notice(state)
        notice.visibility = if (text == null) View.GONE else View.VISIBLE
        notice.text = text
        val helpless = state.helpless
        notice.setBackgroundColor(notice.context.getColor(if (helpless) R.color.error else R.color.notice))
        notice.setTextColor(notice.context.getColor(if (helpless) R.color.on_error else R.color.on_notice))
    }
}
