/*
 * The one screen: shows the chat's state and passes on what the user does.
 *
 * Whatever the user types is in the state before this thread does anything else, so no frame shows a text with the label
 * of another one. Leaves out: all work, which the chat does on other threads.
 */
package io.pocketbert.app

import android.app.Activity
import android.os.Bundle
import io.pocketbert.chat.ChatState
import kotlinx.coroutines.Job
import kotlinx.coroutines.MainScope
import kotlinx.coroutines.cancel
import kotlinx.coroutines.launch

class ChatActivity : Activity() {
    private val scope = MainScope()
    private val chat by lazy { (application as ChatApplication).chat }
    private lateinit var screen: ChatScreen
    private var sheet: ModelSheet? = null
    private var watching: Job? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.chat)
        window.drawEdgeToEdge()
        screen = ChatScreen(findViewById(R.id.root), chat)
    }

    override fun onStart() {
        super.onStart()
        chat.wake()
        watching = scope.launch { chat.state.collect { show() } }
    }

    override fun onStop() {
        watching?.cancel()
        if (!isChangingConfigurations) chat.showSheet(false) // nobody looks at the figures
        super.onStop()
    }

    override fun onDestroy() {
        scope.cancel()
        sheet?.leave()
        super.onDestroy()
    }

    private fun show() {
        val state = chat.state.value
        screen.show(state)
        show(sheet, state)
    }

    private fun show(shown: ModelSheet?, state: ChatState) {
        if (!state.sheet) {
            shown?.leave()
            sheet = null
        } else {
            sheet = (shown ?: ModelSheet(this, chat).apply { show() }).also { it.show(state) }
        }
    }
}
